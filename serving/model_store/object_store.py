"""A model base path in Google Cloud Storage, which has neither renames nor locks.

A server takes `<number>/` for a version once it holds any object, and can load it once it holds saved_model.pb. So that
object comes last and goes first, and what it needs is decided by single requests that the store answers in one order:

- A number is taken by creating `.number-<number>`, which only one process can. It names the staging place.
- A publication is decided when the copying into `<number>/` begins. Any process may carry it on, as often as it likes,
  while the staging place has its saved_model.pb; deleting that takes the publication back.
- Objects are deleted only as they were when they were listed, never what another process has written since.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import BinaryIO

import requests
from google.api_core.exceptions import GoogleAPIError, NotFound, PreconditionFailed
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from serving.model_store.errors import ModelStoreError
from serving.model_store.model_files import SAVED_MODEL_FILE
from serving.model_store.model_version import ModelVersion
from serving.model_store.provenance import PROVENANCE_FILE, decode, encode
from serving.model_store.version_number import LARGEST_VERSION_NUMBER, parse_version_number

API_ERRORS = (GoogleAPIError, GoogleAuthError, DataCorruption, InvalidResponse, requests.RequestException)

# All names below the base path that are no version; none parses as an integer.
_NUMBER = ".number-"  # + number: holds the name of the version's staging place
_STAGING = ".staging-"  # + random
_WITHDRAWN = ".withdrawn-"  # + number: the version; + number + .json: the reason, written when the version is whole

# Nothing tells a slow process from a dead one here, but a publication that takes longer is abandoned.
_ABANDONED_AFTER = timedelta(days=1)


def open_bucket(path: str) -> tuple[storage.Bucket, str]:
    """The bucket of gs://bucket/path, and the prefix of all names below that path."""
    bucket, _, folder = path.removeprefix("gs://").strip("/").partition("/")
    if not bucket or not folder:
        raise ModelStoreError(f"an address in an object store is gs://bucket/path, received {path!r}.")
    return storage.Client().bucket(bucket), f"{folder}/"


class ObjectStore:
    """A model base path at gs://bucket/path."""

    def __init__(self, base_path: str) -> None:
        self._base_path = base_path.rstrip("/")
        self._bucket, self._prefix = open_bucket(base_path)

    def create(self) -> None:
        """Nothing to do: an object store has no directories."""

    @contextmanager
    def reading(self) -> Iterator[None]:
        yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        self._finish_what_others_began()
        yield

    def versions(self) -> list[ModelVersion]:
        while True:
            places = self._places()
            # Only an object that another process has just removed is not found: then look again.
            with suppress(NotFound):
                return self._versions(places)

    @contextmanager
    def staging(self) -> Iterator[str]:
        staging = f"{_STAGING}{secrets.token_hex(8)}"
        try:
            yield staging
        finally:
            with suppress(*API_ERRORS):  # what is left is hidden, and removed when it counts as abandoned
                self._discard(staging)

    @contextmanager
    def open(self, staging: str, name: str) -> Iterator[BinaryIO]:
        # Not by Blob.open: a writer whose upload failed sends it again when it is garbage-collected.
        with tempfile.TemporaryFile() as content:
            yield content
            size = content.tell()
            self._blob(f"{staging}/{name}").upload_from_file(content, rewind=True, size=size, if_generation_match=0)

    def reserve(self, staging: str) -> int:
        names = [name.removeprefix(_NUMBER).removeprefix(_WITHDRAWN) for name in self._places()]
        number = max((parse_version_number(name) or 0 for name in names), default=0) + 1
        while number <= LARGEST_VERSION_NUMBER:
            try:
                self._blob(f"{_NUMBER}{number}").upload_from_string(staging, if_generation_match=0)
                return number
            except PreconditionFailed:  # another process was quicker
                number += 1
        raise ModelStoreError(
            f"{self._base_path} has no version number left, {number - 1} is taken: move that version away by hand."
        )

    def commit(self, staging: str, number: int) -> str:
        try:
            self._copy_version(staging, str(number))
        except BaseException as error:
            arrived = False
            with suppress(*API_ERRORS):  # what is left is dealt with by the next command
                self._discard(staging)
                arrived = not self._remove_incomplete(str(number))
            if not (arrived and isinstance(error, API_ERRORS)):  # or else only the answer got lost
                raise
        return f"{self._base_path}/{number}"

    def hide(self, version: ModelVersion, reason: str) -> str:
        hidden = f"{_WITHDRAWN}{version.number}"
        place = version.path.rpartition("/")[2]
        blobs = self._blobs(place)
        self._copy_version(place, hidden)
        self._blob(f"{hidden}.json").upload_from_string(encode({"reason": reason}), retry=DEFAULT_RETRY)
        self._take_down(version.number, blobs)
        return f"{self._base_path}/{hidden}"

    def show(self, version: ModelVersion) -> str:
        hidden = version.path.rpartition("/")[2]
        with self.staging() as staging:
            self._copy_version(hidden, staging)
            self._blob(f"{_NUMBER}{version.number}").upload_from_string(staging, retry=DEFAULT_RETRY)
            path = self.commit(staging, version.number)
        self._forget_withdrawn(version.number)
        return path

    def remove(self, version: ModelVersion) -> None:
        self._forget_withdrawn(version.number)
        self._take_down(version.number, self._blobs(version.path.rpartition("/")[2]))

    def _versions(self, places: dict[str, dict[str, storage.Blob]]) -> list[ModelVersion]:
        visible: dict[int, ModelVersion] = {}
        withdrawn: dict[int, ModelVersion] = {}
        # In this order, `7` comes after `007`: of several names of one number TensorFlow Serving takes the last.
        for name, blobs in sorted(places.items()):
            if SAVED_MODEL_FILE not in blobs:
                continue
            provenance = decode(blobs[PROVENANCE_FILE].download_as_bytes()) if PROVENANCE_FILE in blobs else {}
            path = f"{self._base_path}/{name}"
            if (number := parse_version_number(name)) is not None:
                visible[number] = ModelVersion(number, path, False, provenance)
            elif (number := parse_version_number(name.removeprefix(_WITHDRAWN))) is not None:
                if f"{name}.json" not in places:
                    continue  # not yet whole
                reason = decode(self._blob(f"{name}.json").download_as_bytes()).get("reason", "")
                withdrawn[number] = ModelVersion(number, path, True, provenance, reason)
        # A withdrawal in progress, or what a restoration has not yet removed, is not withdrawn.
        return [*visible.values(), *(version for number, version in withdrawn.items() if number not in visible)]

    def _finish_what_others_began(self) -> None:
        places = self._places()
        for place, blobs in places.items():
            number = parse_version_number(place)
            if number is not None and SAVED_MODEL_FILE not in blobs:
                self._finish_version(place, number, blobs)
            newest = max(blob.updated for blob in blobs.values())
            if place.startswith(_STAGING) and datetime.now(UTC) - newest > _ABANDONED_AFTER:
                self._discard(place)

    def _finish_version(self, place: str, number: int, blobs: dict[str, storage.Blob]) -> None:
        """Carry on a publication or a removal that stopped half-way, or that another process is at right now."""
        staging = self._read(f"{_NUMBER}{number}")
        if staging is None:
            return  # something else is writing it
        if staging and self._blob(f"{staging}/{SAVED_MODEL_FILE}").exists(retry=DEFAULT_RETRY):
            with suppress(NotFound):  # the other process has finished it
                self._copy_version(staging, place)
        # In this order: the staging place of a publication loses its saved_model.pb after the version has got its own.
        elif not self._blob(f"{place}/{SAVED_MODEL_FILE}").exists(retry=DEFAULT_RETRY):
            self._delete(blobs)

    def _take_down(self, number: int, blobs: dict[str, storage.Blob]) -> None:
        """Delete the objects of a visible version, as they were listed."""
        with suppress(PreconditionFailed):  # pushed by something else, it has no such object yet
            self._blob(f"{_NUMBER}{number}").upload_from_string("", if_generation_match=0)
        staging = self._read(f"{_NUMBER}{number}")
        if staging:  # nobody may carry on its publication any more
            self._delete_name(f"{staging}/{SAVED_MODEL_FILE}")
        with suppress(NotFound):
            blobs[SAVED_MODEL_FILE].delete(if_generation_match=blobs[SAVED_MODEL_FILE].generation)
        self._delete(blobs)

    def _remove_incomplete(self, place: str) -> bool:
        """Whether there was no whole version, so that its objects were deleted."""
        blobs = self._blobs(place)
        if SAVED_MODEL_FILE not in blobs:
            self._delete(blobs)
        return SAVED_MODEL_FILE not in blobs

    def _discard(self, staging: str) -> None:
        self._delete_name(f"{staging}/{SAVED_MODEL_FILE}")
        self._delete(self._blobs(staging))

    def _forget_withdrawn(self, number: int) -> None:
        self._delete_name(f"{_WITHDRAWN}{number}.json")
        self._delete(self._blobs(f"{_WITHDRAWN}{number}"))

    def _copy_version(self, source: str, target: str) -> None:
        """Copy a version within the bucket, saved_model.pb last; raises NotFound where the source has none."""
        for name in sorted(self._blobs(source).keys() - {SAVED_MODEL_FILE}):
            self._copy(f"{source}/{name}", f"{target}/{name}")
        self._copy(f"{source}/{SAVED_MODEL_FILE}", f"{target}/{SAVED_MODEL_FILE}")

    def _copy(self, source: str, target: str) -> None:
        """Copy an object within the bucket, over what is there."""
        rewrite = partial(self._blob(target).rewrite, self._blob(source), retry=DEFAULT_RETRY)
        token, _, _ = rewrite()
        while token is not None:  # a large object takes several requests between storage classes
            token, _, _ = rewrite(token=token)

    def _delete(self, blobs: dict[str, storage.Blob]) -> None:
        """Delete objects, but not what has been written under their names since they were listed."""
        for blob in blobs.values():
            with suppress(NotFound, PreconditionFailed):
                blob.delete(if_generation_match=blob.generation)

    def _delete_name(self, name: str) -> None:
        with suppress(NotFound):
            self._blob(name).delete(retry=DEFAULT_RETRY)

    def _read(self, name: str) -> str | None:
        try:
            text: str = self._blob(name).download_as_text()
        except NotFound:
            return None
        return text

    def _blob(self, name: str) -> storage.Blob:
        return self._bucket.blob(f"{self._prefix}{name}")

    def _blobs(self, place: str) -> dict[str, storage.Blob]:
        """The objects below `place`, by the rest of their names."""
        prefix = f"{self._prefix}{place}/"
        return {blob.name[len(prefix) :]: blob for blob in self._bucket.list_blobs(prefix=prefix)}

    def _places(self) -> dict[str, dict[str, storage.Blob]]:
        """All objects, by the first part of their names and the rest, which is "" for an object of the store's own."""
        places: dict[str, dict[str, storage.Blob]] = {}
        for blob in self._bucket.list_blobs(prefix=self._prefix):
            place, _, rest = blob.name[len(self._prefix) :].partition("/")
            places.setdefault(place, {})[rest] = blob
        return places
