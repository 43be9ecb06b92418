"""How far the columns of a span moved."""

from __future__ import annotations

from dataclasses import dataclass

from tensorflow_metadata.proto.v0 import anomalies_pb2


@dataclass(frozen=True)
class MeasuredDrift:
    """A column's Jensen-Shannon divergence from the span before, and the largest that is allowed."""

    divergence: float
    bound: float


def measured_drift(anomalies: anomalies_pb2.Anomalies) -> dict[str, MeasuredDrift]:
    """Column -> what DistributionValidator measured, of those columns that could be compared."""
    return {
        ".".join(found.path.step): MeasuredDrift(measured.value, measured.threshold)
        for found in anomalies.drift_skew_info
        for measured in found.drift_measurements
    }
