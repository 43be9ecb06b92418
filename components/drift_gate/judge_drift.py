"""What a comparison of two spans says, in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2

from components.data_gate.column_statistics import column_name
from components.drift_gate.measured_drift import measured_drift


@dataclass(frozen=True)
class ComparedSpan:
    """A span, and how it differs from the one before it.

    Attributes:
        name: of the span.
        anomalies: DistributionValidator's, with the divergences that it measured.
        statistics: of the span.
        before: of the one before it.
    """

    name: str
    anomalies: anomalies_pb2.Anomalies
    statistics: statistics_pb2.DatasetFeatureStatistics
    before: statistics_pb2.DatasetFeatureStatistics


def drift_sentences(span: ComparedSpan, previous: str) -> Iterator[str]:
    """One sentence for each column that drifted too far, or that cannot be compared.

    Args:
        span: the comparison.
        previous: what the span before it is called.
    """
    measured = measured_drift(span.anomalies)
    for key, anomaly in sorted(span.anomalies.anomaly_info.items()):
        column = ".".join(anomaly.path.step) or key
        where = f"span {span.name}, column {column!r}"
        advice = f"data.spans.maximum_drift_of.{column} in the config sets its bound, null leaves it out"
        if column not in measured:
            now, before = _kind(span.statistics, column), _kind(span.before, column)
            yield f"{where} holds {now}, and {before} in span {previous}: they cannot be compared; mend it, or {advice}"
        else:
            drift = measured[column]
            yield (
                f"{where}: Jensen-Shannon divergence {drift.divergence:.4f} from span {previous}, expected at most "
                f"{drift.bound:g}; see what changed, and mend it or take it as it is: {advice}"
            )


def _kind(statistics: statistics_pb2.DatasetFeatureStatistics, name: str) -> str:
    column = next((column for column in statistics.features if column_name(column) == name), None)
    if column is None:
        return "nothing"
    kind = column.WhichOneof("stats")
    common = getattr(column, kind).common_stats
    if not common.num_non_missing:
        return "nothing"
    return {"num_stats": "numbers", "string_stats": "text"}.get(kind, kind)
