"""The model base path in Google Cloud Storage, which has neither renames nor locks.

A server takes `<number>/` for a version once it holds any object, and can load it once it holds saved_model.pb. So that
object comes last and goes first, everywhere. What processes must agree on hangs on single requests, which the store
answers one after the other:

- `.number-<number>` takes a number, and names the staging place its version comes from. It is created, and later
  replaced, only as it was last seen.
- Once copying from there into `<number>/` has begun, any process may carry it on, as often as it likes; deleting the
  saved_model.pb of the staging place puts an end to it.
- Objects are deleted only as they were when they were listed, never what another process has written since.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterator
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

from serving.model_store.base import (
    LABELS_FILE,
    LARGEST_VERSION_NUMBER,
    PROVENANCE_FILE,
    SAVED_MODEL_FILE,
    ModelStoreError,
    ModelVersion,
    decode_json,
    decode_labels,
    encode_json,
    encode_labels,
    open_bucket,
    parse_version_number,
)

API_ERRORS = (GoogleAPIError, GoogleAuthError, DataCorruption, InvalidResponse, requests.RequestException)

# All names below the base path that are no version; none parses as an integer.
_NUMBER = ".number-"  # + number: holds the name of the version's staging place
_STAGING = ".staging-"  # + random
_WITHDRAWN = ".withdrawn-"  # + number: the version; + number + .json: the reason, written when the version is whole

# Nothing tells a slow process from a dead one here, but a publication that takes longer is abandoned.
_ABANDONED_AFTER = timedelta(days=1)


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
        try:
            yield
        except (NotFound, PreconditionFailed) as error:
            raise ModelStoreError(
                f"another process is changing {self._base_path} at the same time: see what became of it with "
                f"`ingraph models list {self._base_path}`, then try again."
            ) from error

    def versions(self) -> list[ModelVersion]:
        while True:
            places = self._places()
            # Only an object that another process has just removed is not found: then look again.
            with suppress(NotFound):
                return self._versions(places)

    def labels(self) -> dict[str, int]:
        content = self._read(LABELS_FILE)
        return decode_labels(self._base_path, None if content is None else content.encode())

    def change_labels(self, change: Callable[[dict[str, int]], dict[str, int]]) -> None:
        taken = self._bucket.get_blob(f"{self._prefix}{LABELS_FILE}")
        labels = decode_labels(self._base_path, taken.download_as_bytes() if taken else None)
        self._blob(LABELS_FILE).upload_from_string(
            encode_labels(change(labels)), if_generation_match=taken.generation if taken else 0
        )

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
                blobs = self._blobs(str(number))
                arrived = SAVED_MODEL_FILE in blobs
                if blobs and not arrived:
                    self._finish_version(str(number), number, blobs)
            if not (arrived and isinstance(error, API_ERRORS)):  # or else only the answer got lost
                raise
        return f"{self._base_path}/{number}"

    def hide(self, version: ModelVersion, reason: str) -> str:
        hidden = f"{_WITHDRAWN}{version.number}"
        place = version.path.rpartition("/")[2]
        blobs = self._blobs(place)
        self._copy_version(place, hidden)
        self._blob(f"{hidden}.json").upload_from_string(encode_json({"reason": reason}), retry=DEFAULT_RETRY)
        self._take_down(version.number, blobs)
        return f"{self._base_path}/{hidden}"

    def show(self, version: ModelVersion) -> str:
        hidden = version.path.rpartition("/")[2]
        # As they are now: once the version is visible, another process may withdraw it again.
        reason, blobs = self._listed(f"{hidden}.json"), self._blobs(hidden)
        with self._staging_to_restore(version.number, hidden) as staging:
            path = self.commit(staging, version.number)
        self._delete(reason)
        self._delete(blobs)
        return path

    def remove(self, version: ModelVersion) -> None:
        # A restoration that was killed before its end may have left it; without the version it would count again.
        self._delete(self._listed(f"{_WITHDRAWN}{version.number}.json"))
        self._take_down(version.number, self._blobs(version.path.rpartition("/")[2]))

    @contextmanager
    def _staging_to_restore(self, number: int, hidden: str) -> Iterator[str]:
        """The staging place of a restoration that is under way, or one made from the hidden version."""
        taken = self._bucket.get_blob(f"{self._prefix}{_NUMBER}{number}")
        generation = taken.generation if taken else 0
        staging = taken.download_as_text() if taken else ""
        if staging and self._blob(f"{staging}/{SAVED_MODEL_FILE}").exists(retry=DEFAULT_RETRY):
            yield staging
            self._discard(staging)
            return
        with self.staging() as staging:
            self._copy_version(hidden, staging)
            self._blob(f"{_NUMBER}{number}").upload_from_string(staging, if_generation_match=generation)
            yield staging

    def _versions(self, places: dict[str, dict[str, storage.Blob]]) -> list[ModelVersion]:
        visible: dict[int, ModelVersion] = {}
        withdrawn: dict[int, ModelVersion] = {}
        # In this order, `7` comes after `007`: of several names of one number TensorFlow Serving takes the last.
        for name, blobs in sorted(places.items()):
            if SAVED_MODEL_FILE not in blobs:
                continue
            provenance = decode_json(blobs[PROVENANCE_FILE].download_as_bytes()) if PROVENANCE_FILE in blobs else {}
            path = f"{self._base_path}/{name}"
            if (number := parse_version_number(name)) is not None:
                visible[number] = ModelVersion(number, path, False, provenance)
            elif (number := parse_version_number(name.removeprefix(_WITHDRAWN))) is not None:
                if f"{name}.json" not in places:
                    continue  # not yet whole
                reason = decode_json(self._blob(f"{name}.json").download_as_bytes()).get("reason", "")
                withdrawn[number] = ModelVersion(number, path, True, provenance, reason)
        # A withdrawal in progress, or what a restoration has not yet removed, is not withdrawn.
        return [*visible.values(), *(version for number, version in withdrawn.items() if number not in visible)]

    def _finish_what_others_began(self) -> None:
        places = self._places()
        for place, blobs in places.items():
            number = parse_version_number(place)
            if number is not None and SAVED_MODEL_FILE not in blobs:
                self._finish_version(place, number, blobs)
            abandoned = datetime.now(UTC) - max(blob.updated for blob in blobs.values()) > _ABANDONED_AFTER
            withdrawn = place.startswith(_WITHDRAWN) and (place.endswith(".json") or f"{place}.json" in places)
            if abandoned and place.startswith((_STAGING, _WITHDRAWN)) and not withdrawn:
                self._delete(blobs)

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
        if SAVED_MODEL_FILE not in blobs:
            raise NotFound(f"version {number} has lost its {SAVED_MODEL_FILE}")
        with suppress(NotFound):
            self._delete_as_listed(blobs[SAVED_MODEL_FILE])
        self._delete(blobs)

    def _discard(self, staging: str) -> None:
        self._delete_name(f"{staging}/{SAVED_MODEL_FILE}")
        self._delete(self._blobs(staging))

    def _copy_version(self, source: str, target: str) -> None:
        """Copy a whole version within the bucket; raises NotFound or PreconditionFailed where it is not whole.

        Its saved_model.pb being the same object before the listing and after the copying, nothing came or went between.
        """
        saved_model = self._bucket.get_blob(f"{self._prefix}{source}/{SAVED_MODEL_FILE}")
        if saved_model is None:
            raise NotFound(f"{self._base_path}/{source} has no {SAVED_MODEL_FILE}")
        for name in sorted(self._blobs(source).keys() - {SAVED_MODEL_FILE}):
            self._copy(f"{source}/{name}", f"{target}/{name}", None)
        self._copy(f"{source}/{SAVED_MODEL_FILE}", f"{target}/{SAVED_MODEL_FILE}", saved_model.generation)

    def _copy(self, source: str, target: str, generation: int | None) -> None:
        """Copy an object (of this generation, if any) within the bucket, over what is there."""
        rewrite = partial(
            self._blob(target).rewrite,
            self._blob(source),
            if_source_generation_match=generation,
            retry=DEFAULT_RETRY,
        )
        token, _, _ = rewrite()
        while token is not None:  # a large object takes several requests between storage classes
            token, _, _ = rewrite(token=token)

    def _delete(self, blobs: dict[str, storage.Blob]) -> None:
        """Delete objects, saved_model.pb first, but not what was written under their names since they were listed."""
        for name in sorted(blobs, key=lambda name: name != SAVED_MODEL_FILE):
            with suppress(NotFound, PreconditionFailed):
                self._delete_as_listed(blobs[name])

    def _delete_as_listed(self, blob: storage.Blob) -> None:
        # Not by blob.delete, which would leave no older generation where the bucket keeps them.
        self._bucket.delete_blob(blob.name, if_generation_match=blob.generation)

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

    def _listed(self, name: str) -> dict[str, storage.Blob]:
        """One object as it is now, {} where there is none."""
        blob = self._bucket.get_blob(f"{self._prefix}{name}")
        return {} if blob is None else {name: blob}

    def _places(self) -> dict[str, dict[str, storage.Blob]]:
        """All objects, by the first part of their names and the rest, which is "" for an object of the store's own."""
        places: dict[str, dict[str, storage.Blob]] = {}
        for blob in self._bucket.list_blobs(prefix=self._prefix):
            place, _, rest = blob.name[len(self._prefix) :].partition("/")
            places.setdefault(place, {})[rest] = blob
        return places
