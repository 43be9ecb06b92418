"""SavedModels: their files, on a file system or in an object store."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from serving.model_store.base import ModelStoreError

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


def model_files(path: str) -> dict[str, Callable[[], BinaryIO]]:
    """What opens each file for reading, by its path relative to `path` (local or gs://); links are followed."""
    if path.startswith("gs://"):
        bucket, prefix = open_bucket(path)
        blobs = {blob.name[len(prefix) :]: blob for blob in bucket.list_blobs(prefix=prefix)}
        # A name that ends in a slash is the placeholder by which web consoles show an empty folder.
        return {name: partial(blob.open, "rb") for name, blob in blobs.items() if not name.endswith("/")}
    root = Path(path)
    found = [Path(folder, name) for folder, _, names in os.walk(root, followlinks=True) for name in names]
    return {file.relative_to(root).as_posix(): _opener(file) for file in found}


def saved_model_files(path: str) -> dict[str, Callable[[], BinaryIO]]:
    """As model_files; raises ModelStoreError where `path` holds no SavedModel."""
    files = model_files(path)
    if SAVED_MODEL_FILE not in files:
        raise ModelStoreError(
            f"{path} is not a SavedModel, it has no {SAVED_MODEL_FILE}: name the directory that holds that file."
        )
    return files


def _opener(file: Path) -> Callable[[], BinaryIO]:
    return lambda: file.open("rb")
