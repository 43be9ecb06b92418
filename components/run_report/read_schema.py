"""The schema of a run."""

from __future__ import annotations

from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.utils import io_utils

from components.run_report.finished_run import FinishedRun


def read_schema(run: FinishedRun) -> schema_pb2.Schema:
    """The schema that a run checked its data with, an empty one where it has none."""
    if "schema" not in run.artifacts:
        return schema_pb2.Schema()
    return io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(run.artifacts["schema"].uri))
