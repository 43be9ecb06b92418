"""Failures of a file system or an object store, each as one sentence for a person."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from serving.model_store.base import ModelStoreError


@contextmanager
def failures(path: str, done: str) -> Iterator[None]:
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
