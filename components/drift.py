"""Drift: how far the columns of two data sets lie apart, how much of it chance explains, and both in words."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import tensorflow_data_validation as tfdv
from scipy import stats
from scipy.spatial.distance import jensenshannon
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2
from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components.data_gate.splits import column_name, present_count

PREVIOUS = "previous"


def compared_splits(splits: Iterable[str]) -> list[str]:
    """The splits that are held against PREVIOUS, in their order."""
    return [split for split in splits if split != PREVIOUS]


@dataclass(frozen=True)
class MeasuredDrift:
    """A column's Jensen-Shannon divergence in bits from the data before, and the largest that is allowed."""

    divergence: float
    bound: float


def measured_drift(anomalies: anomalies_pb2.Anomalies) -> dict[str, MeasuredDrift]:
    """Column -> what TFDV measured, of those columns that could be compared.

    Args:
        anomalies: of DistributionValidator, or of tfdv.validate_statistics with drift comparators.
    """
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
        advice = f"data.spans.maximum_drift_of.{column} sets its bound, null leaves it out"
        if column not in measured:
            now, before = _kind(span.statistics, column), _kind(span.before, column)
            yield f"{where} holds {now}, and {before} in span {previous}: not comparable; mend the data, or {advice}"
        else:
            drift = measured[column]
            yield (
                f"{where}: Jensen-Shannon divergence {drift.divergence:.4f} from span {previous}, expected at most "
                f"{drift.bound:g}; mend the data, or {advice}"
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


# One column in a thousand is called shifted by chance.
_CHANCE = 0.999


def divergence_by_chance(values: int, before: int, after: int) -> float:
    """What the Jensen-Shannon divergence of two samples from one source stays below, in 999 of 1,000 cases, in bits.

    The divergence times 8 ln 2 / (1/n + 1/m) follows chi-square with one degree of freedom less than values.

    Args:
        values: how many different values, or bins, there are.
        before: the size of the one sample, 1 at least.
        after: of the other.
    """
    return float(stats.chi2.ppf(_CHANCE, max(1, values - 1)) * (1 / before + 1 / after) / (8 * math.log(2)))


# TFDV cuts the values of two numeric columns at the bounds of both histograms, of ten buckets each.
_NUMERIC_BINS = 20
# Beyond this share of different values a column is free text or an identifier, and no distribution.
_MAXIMUM_UNIQUE_SHARE = 0.5


@dataclass(frozen=True)
class ColumnShift:
    """The distance of a column between two data sets.

    Attributes:
        column: its name.
        distance: the Jensen-Shannon divergence in bits, as TFDV measures it: 0 the same, 1 no value in common.
        by_chance: what two samples of these sizes from one source stay below, in 999 of 1,000 cases.
    """

    column: str
    distance: float
    by_chance: float

    @property
    def shifted(self) -> bool:
        return self.distance > self.by_chance


def column_shifts(
    before: statistics_pb2.DatasetFeatureStatistics,
    after: statistics_pb2.DatasetFeatureStatistics,
    schema: schema_pb2.Schema,
) -> list[ColumnShift]:
    """The shift of each column that has a distribution, the largest (against what chance does) first.

    TFDV: https://www.tensorflow.org/tfx/data_validation/get_started#checking_data_skew_and_drift
    """
    columns = {column_name(column): column for column in before.features}
    others = {column_name(column): column for column in after.features}
    measured = [
        ColumnShift(name, distance, shift_by_chance(columns[name], others[name]))
        for name, distance in _distances(before, after, schema).items()
        if name in columns and name in others and _is_distribution(columns[name]) and _is_distribution(others[name])
    ]
    return sorted(measured, key=lambda shift: shift.distance / shift.by_chance, reverse=True)


def _distances(
    before: statistics_pb2.DatasetFeatureStatistics,
    after: statistics_pb2.DatasetFeatureStatistics,
    schema: schema_pb2.Schema,
) -> dict[str, float]:
    measuring = schema_pb2.Schema()
    measuring.CopyFrom(schema)
    for feature in measuring.feature:
        feature.drift_comparator.jensen_shannon_divergence.threshold = 0
    found = tfdv.validate_statistics(
        statistics_pb2.DatasetFeatureStatisticsList(datasets=[after]),
        measuring,
        previous_statistics=statistics_pb2.DatasetFeatureStatisticsList(datasets=[before]),
    )
    return {
        column: measured.divergence
        for column, measured in measured_drift(found).items()
        if math.isfinite(measured.divergence)
    }


def _is_distribution(column: statistics_pb2.FeatureNameStatistics) -> bool:
    present = present_count(column)
    if column.WhichOneof("stats") == "string_stats":
        return 0 < column.string_stats.unique <= _MAXIMUM_UNIQUE_SHARE * present
    return column.WhichOneof("stats") == "num_stats" and present > 0


def shift_by_chance(before: statistics_pb2.FeatureNameStatistics, after: statistics_pb2.FeatureNameStatistics) -> float:
    """What the divergence of a column between samples of one source stays below; both hold values."""
    return divergence_by_chance(max(_bins(before), _bins(after)), present_count(before), present_count(after))


_PRESENT_OR_NOT = 2


def presence_shift(
    column: str,
    before: statistics_pb2.DatasetFeatureStatistics,
    after: statistics_pb2.DatasetFeatureStatistics,
) -> ColumnShift:
    """The shift of whether a column holds a value, which TFDV does not measure.

    Args:
        column: its name; data that do not have it hold no value.
        before: statistics of one row at least.
        after: likewise.
    """
    shares = [_present_share(column, statistics) for statistics in (before, after)]
    distance = float(jensenshannon(*([share, 1 - share] for share in shares), base=2)) ** 2
    by_chance = divergence_by_chance(_PRESENT_OR_NOT, int(before.num_examples), int(after.num_examples))
    return ColumnShift(column, distance, by_chance)


def _present_share(name: str, statistics: statistics_pb2.DatasetFeatureStatistics) -> float:
    present = [present_count(column) for column in statistics.features if column_name(column) == name]
    return sum(present) / statistics.num_examples


def _bins(column: statistics_pb2.FeatureNameStatistics) -> int:
    return int(column.string_stats.unique) if column.WhichOneof("stats") == "string_stats" else _NUMERIC_BINS


SHOWN_SHIFTS = 8


def shift_sentence(shifts: Sequence[ColumnShift], after: str, before: str) -> str:
    """Which columns differ by more than chance explains, and by how much.

    Args:
        shifts: what was measured.
        after: what to call the data that is looked at.
        before: what to call the data that it is compared with.
    """
    if not shifts:
        return f"No column of {after} has a distribution that can be compared with {before}."
    shifted = [shift for shift in shifts if shift.shifted]
    if not shifted:
        return f"No column of {after} differs from {before} by more than chance explains."
    named = ", ".join(
        f"{shift.column} ({shift.distance:.3f}; chance explains {shift.by_chance:.3f})"
        for shift in shifted[:SHOWN_SHIFTS]
    )
    more = f" and {len(shifted) - SHOWN_SHIFTS} more" if len(shifted) > SHOWN_SHIFTS else ""
    return (
        f"{len(shifted)} of {len(shifts)} columns of {after} differ from {before} by more than chance: {named}{more}."
    )
