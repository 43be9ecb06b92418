"""Operations on a model base path, on a file system and on an object store alike."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from serving.model_store.base import (
    PROVENANCE_FILE,
    SAVED_MODEL_FILE,
    ModelStoreError,
    ModelVersion,
    Store,
    WithdrawnModelError,
    check_label,
    check_provenance,
    encode_json,
    fingerprints,
    model_files,
    published_provenance,
    saved_model_files,
)
from serving.model_store.signing import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    PublicKey,
    SigningKey,
    check_signature,
    manifest_of,
)


def _open_store(base_path: str) -> Store:
    """The file system or, for gs://bucket/path, the object store behind a model base path."""
    if base_path.startswith("gs://"):
        from serving.model_store.gcs import ObjectStore  # google-cloud-storage takes half a second to import

        return ObjectStore(base_path)
    if not base_path or re.match(r"[a-z0-9]+://", base_path):
        raise ModelStoreError(f"a model base path is a local directory or gs://bucket/path, received {base_path!r}.")
    from serving.model_store.local import FileSystemStore

    return FileSystemStore(base_path)


_CHUNK_BYTES = 1 << 20


def publish(
    base_path: str,
    saved_model: str,
    provenance: Mapping[str, Any],
    extra_files: Mapping[str, bytes] = {},
    key: SigningKey | None = None,
) -> ModelVersion:
    """Copy a SavedModel into a model base path (made where it is missing) as its next version.

    The copy is unchanged but for `extra_files`, `assets.extra/provenance.json` and the signature.

    Args:
        base_path: of the model.
        saved_model: the directory to copy, local or gs://.
        provenance: what is written of it; must hold `data_fingerprint` and `code_fingerprint`. "version",
            "published_at" and "checksums" ({relative path: SHA-256 in hex}) are added.
        extra_files: relative path -> content of files that the version has besides, instead of the SavedModel's own.
        key: what it is signed with; the provenance has the fingerprint of its public key as "signed_by".

    Raises:
        WithdrawnModelError: a withdrawn version has the same two fingerprints.
        ModelStoreError: `saved_model` is none, or the base path cannot take it.
    """
    check_provenance(provenance)
    with _failures(saved_model, "read"):
        files = saved_model_files(saved_model)
    with _failures(base_path, "written"):
        store = _open_store(base_path)
        store.create()
        with store.writing():
            _refuse_withdrawn(base_path, store.versions(), provenance)
        with store.staging() as staging:
            # saved_model.pb first: an object store takes back a publication by deleting it from the staging place.
            files |= {name: partial(io.BytesIO, content) for name, content in extra_files.items()}
            written = {PROVENANCE_FILE, MANIFEST_FILE, SIGNATURE_FILE}
            names = sorted(files.keys() - written, key=lambda name: (name != SAVED_MODEL_FILE, name))
            checksums = {}
            for name in names:
                with files[name]() as source, store.open(staging, name) as target:
                    checksums[name] = _sha256(source, target.write)
            with store.writing():
                # Again: it may have been withdrawn while the files were copied.
                _refuse_withdrawn(base_path, store.versions(), provenance)
                number = store.reserve(staging)
                published = published_provenance(provenance, number, checksums)
                if key is not None:
                    published["signed_by"] = key.fingerprint
                for name, content in _own_files(published, key).items():
                    with store.open(staging, name) as target:
                        target.write(content)
                path = store.commit(staging, number)
    return ModelVersion(number, path, withdrawn=False, provenance=published)


def _own_files(published: Mapping[str, Any], key: SigningKey | None) -> dict[str, bytes]:
    """What a version has beside what was copied: its provenance, and where it is signed the manifest and signature."""
    files = {PROVENANCE_FILE: encode_json(published)}
    if key is not None:
        own = hashlib.sha256(files[PROVENANCE_FILE]).hexdigest()
        files[MANIFEST_FILE] = manifest_of({**published["checksums"], PROVENANCE_FILE: own})
        files[SIGNATURE_FILE] = key.sign(files[MANIFEST_FILE])
    return files


def list_versions(base_path: str) -> list[ModelVersion]:
    """Every version, highest first, withdrawn ones included; [] where the base path does not exist."""
    with _failures(base_path, "read"):
        store = _open_store(base_path)
        with store.reading():
            return sorted(store.versions(), key=lambda version: (version.number, not version.withdrawn), reverse=True)


def served_version(base_path: str) -> ModelVersion | None:
    """The version that TensorFlow Serving serves by default: the highest that is not withdrawn."""
    return _served(list_versions(base_path))


def withdraw(base_path: str, number: int | None = None, reason: str = "") -> ModelVersion:
    """Take a version (by default the served one) from the servers, and refuse to publish its like until `restore`.

    Raises ModelStoreError where there is no such version to withdraw, or a label points to it.
    """
    with _failures(base_path, "written"):
        store = _open_store(base_path)
        with store.writing():
            versions = store.versions()
            if number is None:
                version = _served(versions)
                if version is None:
                    raise ModelStoreError(f"model base path {base_path} serves no version, there is none to withdraw.")
            else:
                version = _find(base_path, versions, number, withdrawn=False)
            _refuse_labelled(base_path, store.labels(), version.number)
            if any(other.withdrawn and other.number == version.number for other in versions):
                raise ModelStoreError(
                    f"version {version.number} in {base_path} was withdrawn before and something else has written it "
                    f"again: move {version.path} away by hand."
                )
            return replace(version, path=store.hide(version, reason), withdrawn=True, reason=reason)


def restore(base_path: str, number: int) -> ModelVersion:
    """Give a withdrawn version back to the servers, under its own number.

    Raises ModelStoreError where no withdrawn version has this number.
    """
    with _failures(base_path, "written"):
        store = _open_store(base_path)
        with store.writing():
            version = _find(base_path, store.versions(), number, withdrawn=True)
            return replace(version, path=store.show(version), withdrawn=False, reason="")


def prune(base_path: str, keep: int) -> list[ModelVersion]:
    """Remove the oldest visible versions but the newest `keep`; never the served one, labelled or withdrawn ones.

    Returns what was removed, highest first.
    """
    if keep < 0:
        raise ModelStoreError(f"the number of versions to keep must not be negative, received {keep}.")
    with _failures(base_path, "written"):
        store = _open_store(base_path)
        with store.writing():
            visible = [version for version in store.versions() if not version.withdrawn]
            visible.sort(key=lambda version: version.number, reverse=True)
            labelled = set(store.labels().values())
            removed = [version for version in visible[max(keep, 1) :] if version.number not in labelled]
            for version in reversed(removed):
                store.remove(version)
    return removed


def labels(base_path: str) -> dict[str, int]:
    """The version that each label points to.

    Raises ModelStoreError where the labels cannot be read.
    """
    with _failures(base_path, "read"):
        return _open_store(base_path).labels()


def label(base_path: str, name: str, number: int) -> ModelVersion:
    """Let a label point to a visible version, whatever it pointed to before.

    Raises ModelStoreError where there is no such version, or the name is none that a request can carry.
    """
    check_label(name)
    with _failures(base_path, "written"):
        store = _open_store(base_path)
        with store.writing():
            version = _find(base_path, store.versions(), number, withdrawn=False)
            store.change_labels(lambda before: before | {name: version.number})
    return version


def unlabel(base_path: str, name: str) -> int:
    """Remove a label; returns the version it pointed to.

    Raises ModelStoreError where there is no such label.
    """
    with _failures(base_path, "written"):
        store = _open_store(base_path)
        with store.writing():
            number = _labelled(base_path, store.labels(), name)
            store.change_labels(lambda before: {other: before[other] for other in before if other != name})
    return number


def promote(base_path: str, source: str = "canary", target: str = "stable") -> ModelVersion:
    """Let the label `target` point to what `source` points to, which it keeps pointing to.

    Raises ModelStoreError where there is no label `source`.
    """
    return label(base_path, target, _labelled(base_path, labels(base_path), source))


def verify(version: ModelVersion) -> list[str]:
    """The files that are missing or whose checksum differs; [] when fine, and where no checksums were recorded."""
    with _failures(version.path, "read"):
        files = model_files(version.path)
        differing = []
        checksums = version.provenance.get("checksums", {})
        if not isinstance(checksums, dict) or not all(isinstance(checksum, str) for checksum in checksums.values()):
            raise ModelStoreError(
                f"{version.path}/{PROVENANCE_FILE} must hold the SHA-256 of each file by its name as `checksums`, "
                f"received {str(checksums)[:40]!r}: publish the model again."
            )
        for name, checksum in sorted(checksums.items()):
            if name in files:
                with files[name]() as source:
                    if _sha256(source) == checksum:
                        continue
            differing.append(name)
    return differing


def verify_signature(path: str, number: int, keys: Sequence[PublicKey], copy_to: Path | None = None) -> PublicKey:
    """The key that has signed the version at this path (local or gs://), none of whose files was changed since.

    Args:
        path: of the version.
        number: of the version.
        keys: any of which may have signed it.
        copy_to: an empty folder, which gets the files that were verified; it is of no use where this raises.

    Raises:
        SignatureError: nobody with one of these keys has published this.
        ModelStoreError: it cannot be read.
    """
    with _failures(path, "read"):
        return check_signature(path, number, model_files(path), keys, copy_to)


def _refuse_withdrawn(base_path: str, versions: Iterable[ModelVersion], provenance: Mapping[str, Any]) -> None:
    for version in versions:
        if version.withdrawn and fingerprints(version.provenance) == fingerprints(provenance):
            because = f" ({version.reason})" if version.reason else ""
            raise WithdrawnModelError(
                f"this model was withdrawn from {base_path} as version {version.number}{because}: train it on other "
                f"data or code, or bring it back with `ingraph models restore {base_path} {version.number}`."
            )


def _refuse_labelled(base_path: str, labels: Mapping[str, int], number: int) -> None:
    names = sorted(name for name, labelled in labels.items() if labelled == number)
    if names:
        raise ModelStoreError(
            f"version {number} in {base_path} is labelled {' and '.join(names)}, and requests for that label would "
            f"fail: move the label first, with `ingraph models label {base_path} {names[0]} VERSION`."
        )


def _labelled(base_path: str, labels: Mapping[str, int], name: str) -> int:
    if name not in labels:
        known = ", ".join(sorted(labels))
        raise ModelStoreError(
            f"there is no label {name} in {base_path}, it has {known or 'none'}: give it to a version with "
            f"`ingraph models label {base_path} {name} VERSION`."
        )
    return labels[name]


def _served(versions: Iterable[ModelVersion]) -> ModelVersion | None:
    visible = [version for version in versions if not version.withdrawn]
    return max(visible, key=lambda version: version.number, default=None)


def _find(base_path: str, versions: Iterable[ModelVersion], number: int, withdrawn: bool) -> ModelVersion:
    same_number = {version.withdrawn: version for version in versions if version.number == number}
    if withdrawn and False in same_number:
        raise ModelStoreError(f"version {number} in {base_path} is not withdrawn, there is nothing to restore.")
    if not withdrawn and list(same_number) == [True]:
        raise ModelStoreError(f"version {number} in {base_path} is withdrawn already.")
    if withdrawn not in same_number:
        known = ", ".join(str(version.number) for version in sorted(versions, key=lambda version: version.number))
        raise ModelStoreError(f"there is no version {number} in {base_path}, it has {known or 'none'}.")
    return same_number[withdrawn]


def _sha256(source: BinaryIO, write: Callable[[bytes], Any] = lambda chunk: None) -> str:
    """The SHA-256 of a file in hex, handing each chunk on to `write`."""
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK_BYTES):
        digest.update(chunk)
        write(chunk)
    return digest.hexdigest()


@contextmanager
def _failures(path: str, done: str) -> Iterator[None]:
    """Raise what the storage refuses in this block as ModelStoreError; `done` is "read" or "written"."""
    try:
        yield
    except Exception as error:
        if _is_from_object_store(error):
            raise ModelStoreError(
                f"{path} cannot be {done} ({_one_line(error)}): check that the bucket exists, that it can be reached, "
                "and that this account may list, create and delete objects in it."
            ) from error
        if isinstance(error, OSError):
            raise ModelStoreError(_sentence(path, done, error)) from error
        raise


def _sentence(path: str, done: str, error: OSError) -> str:
    what = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return f"{path} cannot be {done}, the disk or the quota is full ({what}): free some space, then try again."
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return f"{path} cannot be {done} by this user ({what}): allow it there, or choose another directory."
        case errno.ENOTDIR | errno.EEXIST:
            return f"{path} must be a directory, and a file is in its place ({what}): choose another directory."
        case errno.ENOENT if not os.path.lexists(path):
            return f"there is no directory {path}: check the name; publishing a model makes it."
    return f"{path} cannot be {done} ({what})."


def _is_from_object_store(error: Exception) -> bool:
    # Looked up rather than imported: a local base path must not cost the import of google-cloud-storage.
    module = sys.modules.get("serving.model_store.gcs")
    return module is not None and isinstance(error, module.API_ERRORS)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


_HEADER = """\
# tensorflow.serving.ModelServerConfig, made by `ingraph models config`. Where labels are given, exactly the labelled
# versions and the largest one are served: the default, the latest one only, unloads what a label points to. So make it
# again after publishing, labelling or withdrawing. Servers need --allow_version_labels_for_unavailable_models to start.
"""


@dataclass(frozen=True)
class ConfiguredModel:
    """A model in the config: its name, where it is now, and the absolute path at which the server finds it."""

    name: str
    base_path: str
    served_path: str


def model_server_config(models: Iterable[ConfiguredModel]) -> str:
    """The text of a ModelServerConfig.

    Raises ModelStoreError where a base path holds no version, or a label points to one that is not there.
    """
    blocks = "".join(_block(model) for model in models)
    return f"{_HEADER}model_config_list {{\n{blocks}}}\n"


def _block(model: ConfiguredModel) -> str:
    numbers = {version.number for version in list_versions(model.base_path) if not version.withdrawn}
    if not numbers:
        raise ModelStoreError(f"{model.base_path} has no version to serve: publish one first.")
    labelled = labels(model.base_path)
    for label, number in sorted(labelled.items()):
        if number not in numbers:
            raise ModelStoreError(
                f"label {label} in {model.base_path} points to version {number}, which is not there: "
                f"move it with `ingraph models label {model.base_path} {label} VERSION`."
            )
    lines = [
        f"name: {json.dumps(model.name)}",
        f"base_path: {json.dumps(model.served_path)}",
        'model_platform: "tensorflow"',
    ]
    if labelled:
        served = " ".join(f"versions: {number}" for number in sorted({*labelled.values(), max(numbers)}))
        lines.append(f"model_version_policy {{ specific {{ {served} }} }}")
    lines += [
        f"version_labels {{ key: {json.dumps(label)} value: {number} }}" for label, number in sorted(labelled.items())
    ]
    return "  config {\n" + "".join(f"    {line}\n" for line in lines) + "  }\n"
