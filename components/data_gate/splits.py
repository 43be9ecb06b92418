"""Splits as the gate reads them: TFDV's statistics of one, and its rows as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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


@dataclass(frozen=True)
class SplitRows:
    """Rows of a split.

    Attributes:
        columns: name -> int64, float64 or binary [rows], null where there is no value.
        total: how many rows the split has, of which these may be a sample.
    """

    columns: Mapping[str, pa.Array]
    total: int

    @property
    def count(self) -> int:
        """How many rows are here."""
        return max((len(column) for column in self.columns.values()), default=0)


def joined(parts: Sequence[pa.Array]) -> pa.Array:
    """Parts of a column as one: int64, float64, binary or null, null where there is nothing.

    Args:
        parts: numbers, binary or null; who decodes examples infers a type for each batch, so they may differ.
    """
    types = [part.type for part in parts if not pa.types.is_null(part.type)]
    if not types:
        return pa.nulls(sum(map(len, parts)))
    if all(map(pa.types.is_integer, types)):
        return pa.concat_arrays([part.cast(pa.int64()) for part in parts])
    if all(pa.types.is_integer(type_) or pa.types.is_floating(type_) for type_ in types):
        numbers = pa.concat_arrays([part.cast(pa.float64()) for part in parts])
        return pc.if_else(pc.is_finite(numbers), numbers, None)
    texts = pa.concat_arrays([_as_binary(part) for part in parts])
    # Not if_else, which takes the wrong bytes of an array that is part of another one.
    return pc.replace_with_mask(texts, pc.equal(pc.binary_length(texts), 0), pa.scalar(None, pa.large_binary()))


def _as_binary(part: pa.Array) -> pa.Array:
    is_number = pa.types.is_integer(part.type) or pa.types.is_floating(part.type)
    return (part.cast(pa.large_string()) if is_number else part).cast(pa.large_binary())


@dataclass(frozen=True)
class CodedColumn:
    """A column as places among its different values.

    Attributes:
        codes: int64 [rows], -1 where there is no value.
        values: the different values, ascending.
    """

    codes: np.ndarray
    values: pa.Array

    @property
    def is_text(self) -> bool:
        """Whether the values are text rather than numbers."""
        return bool(pa.types.is_large_binary(self.values.type) or pa.types.is_binary(self.values.type))


def coded(column: pa.Array) -> CodedColumn:
    """The places of a column's values among the different ones.

    Args:
        column: int64, float64, binary or null [rows].
    """
    if pa.types.is_null(column.type):
        return CodedColumn(np.full(len(column), -1), pa.array([], pa.float64()))
    encoded = column.dictionary_encode()
    order = pc.array_sort_indices(encoded.dictionary).to_numpy()
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    indices = encoded.indices.fill_null(-1).to_numpy()
    codes = np.where(indices < 0, -1, place[indices] if len(place) else -1)
    return CodedColumn(codes, encoded.dictionary.take(pa.array(order)))


def compact(codes: np.ndarray) -> tuple[np.ndarray, int]:
    """The same order of codes without the ones that no row has, and how many there are; -1 stays."""
    present = codes >= 0
    used = np.bincount(codes[present]) > 0
    places = np.cumsum(used) - 1
    return np.where(present, places[codes] if len(places) else -1, -1), int(used.sum())
