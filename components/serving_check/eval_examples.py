"""The examples that the check sends."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import tensorflow as tf

from serving.reference_predictions import example_id


def read_examples(files: Sequence[str]) -> Iterator[bytes]:
    """Serialized tf.Examples of TFRecord files, compressed where the name ends in .gz."""
    for file in files:
        yield from tf.data.TFRecordDataset(file, "GZIP" if file.endswith(".gz") else "").as_numpy_iterator()


def choose_examples(files: Sequence[str], maximum: int) -> tuple[list[tuple[str, bytes]], int]:
    """Id and record of up to `maximum` examples, and how many there are in all.

    Those with the smallest ids: a choice at random, and the same one in each run.
    """
    count = 0

    def identified() -> Iterator[tuple[str, bytes]]:
        nonlocal count
        for record in read_examples(files):
            count += 1
            yield example_id(record), record

    # Twins have one id and one record; a file of photos is never in memory whole.
    chosen = heapq.nsmallest(maximum, identified())
    return chosen, count
