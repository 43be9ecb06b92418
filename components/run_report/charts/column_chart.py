"""The values of a column in the two splits."""

from __future__ import annotations

from tensorflow_metadata.proto.v0 import statistics_pb2

from components.data_gate.column_statistics import value_counts
from components.run_report.charts.svg import FIRST, SECOND, new_figure, page_style, svg
from components.run_report.column_summary import ColumnSummary

SHOWN_VALUES = 8


@page_style
def column_chart(column: ColumnSummary) -> str:
    """A small picture: a histogram of numbers, bars of the most frequent texts; "" where there is nothing to draw."""
    kinds = {one.WhichOneof("stats") for one in column.statistics.values()}
    if kinds == {"num_stats"}:
        drawn = {split: _histogram(one) for split, one in column.statistics.items()}
    elif kinds == {"string_stats"}:
        values = list(value_counts(next(iter(column.statistics.values()))))[:SHOWN_VALUES]
        if all(
            one.string_stats.unique > one.string_stats.common_stats.num_non_missing / 2
            for one in column.statistics.values()
        ):
            return ""
        drawn = {split: _bars(one, values) for split, one in column.statistics.items()}
    else:
        return ""
    figure = new_figure(2.2, 0.6)
    axes = figure.subplots()
    for (split, (edges, shares)), colour in zip(drawn.items(), (FIRST, SECOND), strict=False):
        axes.stairs(
            shares,
            edges,
            color=colour,
            fill=colour == FIRST,
            alpha=0.45 if colour == FIRST else 1,
            linewidth=1.5,
            label=split,
        )
    axes.set_axis_off()
    return svg(figure, f"The values of {column.name}: {column.values}")


def _histogram(column: statistics_pb2.FeatureNameStatistics) -> tuple[list[float], list[float]]:
    standard = [one for one in column.num_stats.histograms if one.type == statistics_pb2.Histogram.STANDARD]
    buckets = standard[0].buckets if standard else []
    if not buckets or buckets[0].low_value == buckets[-1].high_value:
        return [0.0, 1.0], [1.0]
    edges = [bucket.low_value for bucket in buckets] + [buckets[-1].high_value]
    total = sum(bucket.sample_count for bucket in buckets) or 1.0
    width = edges[1] - edges[0]
    return edges, [bucket.sample_count / total / width for bucket in buckets]


def _bars(column: statistics_pb2.FeatureNameStatistics, values: list[str]) -> tuple[list[float], list[float]]:
    counts = value_counts(column)
    total = sum(counts.values()) or 1
    return [float(edge) for edge in range(len(values) + 1)], [counts.get(value, 0) / total for value in values]
