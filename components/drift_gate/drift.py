"""Drift of a span: what DistributionValidator found, in figures and in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2
from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components.data_gate.statistics import column_name

PREVIOUS = "previous"


def compared_splits(splits: Iterable[str]) -> list[str]:
    """The splits that are held against PREVIOUS, in their order."""
    return [split for split in splits if split != PREVIOUS]


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
