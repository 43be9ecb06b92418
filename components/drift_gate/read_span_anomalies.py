"""What DistributionValidator left."""

from __future__ import annotations

import re

from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components.drift_gate.splits import PREVIOUS

_FOLDER = re.compile(rf"SplitPair-(.+)_{PREVIOUS}/?")


def read_span_anomalies(uri: str) -> dict[str, anomalies_pb2.Anomalies]:
    """Span -> how it differs from the one before it.

    Args:
        uri: of the artifact `anomalies`.
    """
    found = [match for folder in sorted(fileio.listdir(uri)) if (match := _FOLDER.fullmatch(folder))]
    return {
        match[1]: anomalies_pb2.Anomalies.FromString(io_utils.read_bytes_file(f"{uri}/{match[0]}/SchemaDiff.pb"))
        for match in found
    }
