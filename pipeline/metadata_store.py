"""ML Metadata of the runs of a pipeline."""

from __future__ import annotations

from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2

RUN = "pipeline_run"  # TFX's name for the context of a run


def open_metadata_store(path: str) -> MetadataStore:
    """The store in an SQLite file, for reading."""
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = path
    config.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READONLY
    return MetadataStore(config)
