"""Rows as a split of examples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import tensorflow as tf

from pipeline.skew.comparison import Comparison
from pipeline.skew.request_columns import Columns, Value
from serving.is_missing import is_missing

# Of so much is asked at once what is missing.
_BATCH_ROWS = 10_000
_BATCH_BYTES = 64 * 2**20


def write_examples(batches: Iterable[Columns], comparison: Comparison, split: Path) -> int:
    """Write rows where TFX looks for a split, without what is missing; returns how many there are.

    Args:
        batches: rows, in columns of features.
        comparison: what becomes of them.
        split: its folder, which is made.
    """
    split.mkdir(parents=True)
    written = 0
    with tf.io.TFRecordWriter(str(split / "data_tfrecord-00000-of-00001.gz"), "GZIP") as writer:
        for columns in _joined(batches):
            for row in _rows(columns, comparison):
                writer.write(_example(row).SerializeToString())
                written += 1
    return written


def _joined(batches: Iterable[Columns]) -> Iterable[Columns]:
    """Larger batches of the same rows."""
    joined: Columns = {}
    rows = size = 0
    for columns in batches:
        count = len(next(iter(columns.values())))
        for name in columns.keys() - joined.keys():
            joined[name] = [None] * rows
        for name, values in joined.items():
            values.extend(columns.get(name, [None] * count))
        rows += count
        size += sum(len(value) for values in columns.values() for value in values if isinstance(value, bytes))
        if rows >= _BATCH_ROWS or size >= _BATCH_BYTES:
            yield joined
            joined, rows, size = {}, 0, 0
    if rows:
        yield joined


def _rows(columns: Columns, comparison: Comparison) -> Iterable[dict[str, Value]]:
    present = {name: _present(values, name in comparison.texts) for name, values in columns.items()}
    if comparison.measure is not None:
        (name,) = columns
        measured = iter(comparison.measure([value for value in present[name] if isinstance(value, bytes)]))
        yield from (next(measured) if isinstance(value, bytes) else {} for value in present[name])
        return
    for row in zip(*present.values(), strict=True):
        yield {name: value for name, value in zip(present, row, strict=True) if value is not None}


def _present(values: Sequence[Value | None], are_texts: bool) -> list[Value | None]:
    """The values, with None for every form of a missing one, and for what is no text or no number."""
    present: list[Value | None] = [None] * len(values)
    for kind, dtype in [(bytes, tf.string)] if are_texts else [(int, tf.int64), (float, tf.float32)]:
        places = [place for place, value in enumerate(values) if type(value) is kind]
        if places:
            missing = is_missing(tf.constant([values[place] for place in places], dtype)).numpy()
            for place, is_gone in zip(places, missing, strict=True):
                present[place] = None if is_gone else values[place]
    return present


def _example(row: dict[str, Value]) -> tf.train.Example:
    example = tf.train.Example()
    for name, value in row.items():
        feature = example.features.feature[name]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        else:  # whole or not: requests may mix them, and a column has one type
            feature.float_list.value.append(value)
    return example
