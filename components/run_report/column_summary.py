"""A column of the data in a row of a table."""

from __future__ import annotations

from dataclasses import dataclass

from tensorflow_metadata.proto.v0 import statistics_pb2

from components.data_gate.column_statistics import column_name, present_count, value_counts

SHOWN_VALUES = 4
SHOWN_CHARACTERS = 24


@dataclass(frozen=True)
class ColumnSummary:
    """What the statistics say of a column.

    Attributes:
        name: of the column.
        kind: `numbers`, `text` or `bytes`.
        values: the range and the mean, or the most frequent values, in words.
        missing: split -> the share of examples without a value.
        statistics: split -> TFDV's statistics of the column, for the picture.
    """

    name: str
    kind: str
    values: str
    missing: dict[str, float]
    statistics: dict[str, statistics_pb2.FeatureNameStatistics]


def column_summaries(splits: dict[str, statistics_pb2.DatasetFeatureStatistics]) -> list[ColumnSummary]:
    """A summary of each column, in the order of the first split; values are those of that split."""
    columns = {
        split: {column_name(column): column for column in statistics.features} for split, statistics in splits.items()
    }
    names = dict.fromkeys(name for found in columns.values() for name in found)
    return [_summary(name, columns, splits) for name in names]


def _summary(
    name: str,
    columns: dict[str, dict[str, statistics_pb2.FeatureNameStatistics]],
    splits: dict[str, statistics_pb2.DatasetFeatureStatistics],
) -> ColumnSummary:
    found = {split: named[name] for split, named in columns.items() if name in named}
    missing = {}
    for split, statistics in splits.items():
        present = present_count(found[split]) if split in found else 0
        missing[split] = 1 - present / statistics.num_examples if statistics.num_examples else 0.0
    kind, values = _described(next(iter(found.values())))
    return ColumnSummary(name, kind, values, missing, found)


def _described(column: statistics_pb2.FeatureNameStatistics) -> tuple[str, str]:
    kind = column.WhichOneof("stats")
    if kind == "num_stats":
        numbers = column.num_stats
        return "numbers", f"{numbers.min:.4g} to {numbers.max:.4g}, mean {numbers.mean:.4g}"
    if kind == "bytes_stats":
        return "bytes", f"{column.bytes_stats.avg_num_bytes:,.0f} bytes on average"
    counts = value_counts(column)
    unique = int(column.string_stats.unique)
    if unique > present_count(column) / 2:
        return "text", f"{unique:,} different, {column.string_stats.avg_length:.0f} bytes on average"
    shown = ", ".join(f"{_shortened(value)} ({count:,})" for value, count in list(counts.items())[:SHOWN_VALUES])
    more = f" and {unique - SHOWN_VALUES:,} more" if unique > SHOWN_VALUES else ""
    return "text", shown + more


def _shortened(value: str) -> str:
    return value if len(value) <= SHOWN_CHARACTERS else value[: SHOWN_CHARACTERS - 1] + "…"
