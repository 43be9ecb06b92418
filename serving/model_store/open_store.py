"""From the address of a model base path to the store that keeps it."""

from __future__ import annotations

import re

from serving.model_store.errors import ModelStoreError
from serving.model_store.store import Store


def open_store(base_path: str) -> Store:
    """The file system or, for gs://bucket/path, the object store behind a model base path."""
    if base_path.startswith("gs://"):
        from serving.model_store.object_store import ObjectStore  # google-cloud-storage takes half a second to import

        return ObjectStore(base_path)
    if not base_path or re.match(r"[a-z0-9]+://", base_path):
        raise ModelStoreError(f"a model base path is a local directory or gs://bucket/path, received {base_path!r}.")
    from serving.model_store.file_system_store import FileSystemStore

    return FileSystemStore(base_path)
