"""TFDV's statistics of a split, as the gate reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2


def column_name(column: statistics_pb2.FeatureNameStatistics) -> str:
    """The column's name; steps of a nested one are joined by dots."""
    return column.name or ".".join(column.path.step)


def present_count(column: statistics_pb2.FeatureNameStatistics) -> int:
    """In how many examples the column has a value."""
    kind = column.WhichOneof("stats")
    return int(getattr(column, kind).common_stats.num_non_missing) if kind else 0


def value_counts(column: statistics_pb2.FeatureNameStatistics) -> dict[str, int]:
    """How often each value of a text or categorical column occurs, the most frequent first; {} for other columns.

    The statistics hold the 1,000 most frequent values.
    """
    return {bucket.label: int(bucket.sample_count) for bucket in column.string_stats.rank_histogram.buckets}


def non_numeric_values(column: statistics_pb2.FeatureNameStatistics) -> dict[str, int]:
    """How often each value that is no number occurs in a text column."""
    return {value: count for value, count in value_counts(column).items() if not _is_number(value)}


def class_counts(column: statistics_pb2.FeatureNameStatistics) -> dict[str, int]:
    """How often each value of a label column occurs; {} where the statistics do not say.

    They do for text, for 0/1 and for a single number; of other numbers they keep a histogram only.
    """
    if column.WhichOneof("stats") != "num_stats":
        return value_counts(column)
    numbers, present = column.num_stats, present_count(column)
    if present and numbers.min == numbers.max:
        return {f"{numbers.min:g}": present}
    if (numbers.min, numbers.max) == (0, 1) and column.type == statistics_pb2.FeatureNameStatistics.INT:
        return {"0": int(numbers.num_zeros), "1": present - int(numbers.num_zeros)}
    return {}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class SplitFindings:
    """The statistics of a split, and the anomalies TFDV found in them."""

    name: str
    statistics: statistics_pb2.DatasetFeatureStatistics
    anomalies: anomalies_pb2.Anomalies

    @property
    def examples(self) -> int:
        return int(self.statistics.num_examples)

    @property
    def columns(self) -> Mapping[str, statistics_pb2.FeatureNameStatistics]:
        return {column_name(column): column for column in self.statistics.features}


def mean_bytes(split: SplitFindings) -> float:
    """How many bytes the texts of an example have, all columns together."""
    texts = (column.string_stats for column in split.statistics.features if column.HasField("string_stats"))
    return sum(text.avg_length * text.common_stats.num_non_missing for text in texts) / max(split.examples, 1)
