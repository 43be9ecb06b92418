"""The model base path: versions, labels, provenance, SavedModels to publish, and what a store of them must do."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import orjson


class ModelStoreError(Exception):
    """The model base path, or what was to be done with it, is unusable; a server sees the same versions as before."""


class WithdrawnModelError(ModelStoreError):
    """The model to publish was withdrawn before."""


LARGEST_VERSION_NUMBER = 2**63 - 1
_INTEGER = re.compile(r"[ \t\n\v\f\r]*\+?([0-9]+)[ \t\n\v\f\r]*")


def parse_version_number(name: str) -> int | None:
    """The version that a directory of this name is to TensorFlow Serving, `007` being 7; None where it is none.

    Source: absl::SimpleAtoi to int64, in sources/storage_path/file_system_storage_path_source.cc. Negative numbers are
    left out: no store counts down to them.
    """
    match = _INTEGER.fullmatch(name)
    if match is None or int(match[1]) > LARGEST_VERSION_NUMBER:
        return None
    return int(match[1])


@dataclass(frozen=True)
class ModelVersion:
    """One published version of a model; `reason` says why it was withdrawn, `provenance` is {} where there is none."""

    number: int
    path: str
    withdrawn: bool
    provenance: Mapping[str, Any]
    reason: str = ""


LABELS_FILE = ".labels.json"
_LABEL = re.compile(r"[A-Za-z0-9_.-]+")


def check_label(label: str) -> None:
    """Raise ModelStoreError where a label could not stand in the address of a request."""
    if not _LABEL.fullmatch(label):
        raise ModelStoreError(f"a label is made of letters, digits, '_', '-' and '.', received {label!r}.")


def encode_labels(labels: Mapping[str, int]) -> bytes:
    """The file's content."""
    return orjson.dumps(dict(labels), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)


def decode_labels(base_path: str, content: bytes | None) -> dict[str, int]:
    """The version of each label; None, where there is no such file, has none.

    Raises ModelStoreError where the file does not hold what it should, an empty one too: somebody may be writing it,
    and labels must not get lost silently.
    """
    if content is None:
        return {}
    try:
        labels = orjson.loads(content)
    except orjson.JSONDecodeError:
        labels = None
    if not isinstance(labels, dict) or not all(type(number) is int for number in labels.values()):
        raise ModelStoreError(
            f"{base_path}/{LABELS_FILE} must hold a JSON object of labels and version numbers, such as "
            f'{{"stable": 3}}, '
            f"received {content[:40]!r}: correct it, or remove it and give the labels again."
        )
    return labels


PROVENANCE_FILE = "assets.extra/provenance.json"
FINGERPRINTS = ("data_fingerprint", "code_fingerprint")


def fingerprints(provenance: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes two models the same: the data and the code they come from."""
    return tuple(provenance.get(key) for key in FINGERPRINTS)


def check_provenance(provenance: Mapping[str, Any]) -> None:
    """Raise ModelStoreError unless the fingerprints are there and everything can be written as JSON."""
    missing = [key for key in FINGERPRINTS if not provenance.get(key)]
    if missing:
        raise ModelStoreError(
            f"the provenance of a model must hold {' and '.join(FINGERPRINTS)}; missing here: {', '.join(missing)}."
        )
    try:
        encode_json(provenance)
    except orjson.JSONEncodeError as error:
        raise ModelStoreError(f"the provenance of a model must be JSON values: {error}.") from error


def published_provenance(provenance: Mapping[str, Any], number: int, checksums: Mapping[str, str]) -> dict[str, Any]:
    """What was given, with the version, the time of publication and the SHA-256 of each file."""
    published_at = datetime.now(UTC).isoformat(timespec="seconds")
    return {**provenance, "version": number, "published_at": published_at, "checksums": dict(checksums)}


def encode_json(document: Mapping[str, Any]) -> bytes:
    """JSON as a person reads it; NaN and infinities become null."""
    return orjson.dumps(dict(document), option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)


def decode_json(document: bytes) -> dict[str, Any]:
    """The JSON object in a file, {} where it holds none: a foreign file must not make a base path unusable."""
    try:
        decoded = orjson.loads(document)
    except orjson.JSONDecodeError:
        return {}
    return decoded if isinstance(decoded, dict) else {}


class Store(Protocol):
    """A model base path; errors are ModelStoreError."""

    def create(self) -> None:
        """Make the base path where it is missing."""

    def reading(self) -> AbstractContextManager[None]:
        """In this block versions() is one consistent picture, as far as the store can give one."""

    def writing(self) -> AbstractContextManager[None]:
        """Needed around everything that changes what is visible; first deals with what killed processes left."""

    def versions(self) -> list[ModelVersion]:
        """Every complete version, in no particular order."""

    def labels(self) -> dict[str, int]:
        """The version that each label points to, as it is at one moment; needs no block."""

    def change_labels(self, change: Callable[[dict[str, int]], dict[str, int]]) -> None:
        """Replace the labels as a whole by what `change` makes of them."""

    def staging(self) -> AbstractContextManager[str]:
        """A place that no server looks at, gone at the end of the block. Not inside a writing() block."""

    def open(self, staging: str, name: str) -> AbstractContextManager[BinaryIO]:
        """A new file of the staged version, open for writing."""

    def reserve(self, staging: str) -> int:
        """A number larger than every one that was ever there, from now on that of the staged version."""

    def commit(self, staging: str, number: int) -> str:
        """Make the staged version visible under its number; returns its path."""

    def hide(self, version: ModelVersion, reason: str) -> str:
        """Take a visible version from the server's sight and keep it; returns its new path."""

    def show(self, version: ModelVersion) -> str:
        """Make a hidden version visible under its own number; returns its path."""

    def remove(self, version: ModelVersion) -> None:
        """Remove a visible version for good, in such an order that no server sees it half."""


if TYPE_CHECKING:
    from google.cloud import storage

SAVED_MODEL_FILE = "saved_model.pb"


def open_bucket(path: str) -> tuple[storage.Bucket, str]:
    """The bucket of gs://bucket/path, and the prefix of all names below that path."""
    from google.cloud import storage  # takes half a second to import

    bucket, _, folder = path.removeprefix("gs://").strip("/").partition("/")
    if not bucket or not folder:
        raise ModelStoreError(f"an address in an object store is gs://bucket/path, received {path!r}.")
    return storage.Client().bucket(bucket), f"{folder}/"


def model_files(path: str, regular: bool = True) -> dict[str, Callable[[], BinaryIO]]:
    """What opens each file for reading, by its path relative to `path` (local or gs://); links are followed.

    Args:
        path: of a version or a SavedModel.
        regular: whether to refuse pipes and devices, whose content might never end.
    """
    if path.startswith("gs://"):
        bucket, prefix = open_bucket(path)
        blobs = {blob.name[len(prefix) :]: blob for blob in bucket.list_blobs(prefix=prefix)}
        # A name that ends in a slash is the placeholder by which web consoles show an empty folder.
        return {name: partial(blob.open, "rb") for name, blob in blobs.items() if not name.endswith("/")}
    root = Path(path)
    found = [Path(folder, name) for folder, _, names in os.walk(root, followlinks=True) for name in names]
    return {file.relative_to(root).as_posix(): partial(_opened, file, regular) for file in found}


def saved_model_files(path: str) -> dict[str, Callable[[], BinaryIO]]:
    """As model_files, of whatever kind; raises ModelStoreError where `path` holds no SavedModel."""
    files = model_files(path, regular=False)
    if SAVED_MODEL_FILE not in files:
        raise ModelStoreError(
            f"{path} is not a SavedModel, it has no {SAVED_MODEL_FILE}: name the directory that holds that file."
        )
    return files


def _opened(file: Path, regular: bool) -> BinaryIO:
    if regular and file.exists() and not file.is_file():
        raise ModelStoreError(f"{file} is no regular file, expected those of a SavedModel: remove it.")
    return file.open("rb")
