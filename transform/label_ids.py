"""The label's number, and the vocabulary that numbers it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform import annotators
from tensorflow_transform.beam import experimental as tft_beam

from serving.is_missing import is_missing
from serving.labels import VOCABULARY
from transform.dense_column import dense_column
from transform.label_options import LabelOptions


def label_ids(values: tf.Tensor | tf.SparseTensor, options: LabelOptions) -> tf.Tensor:
    """int64 [batch]: where the label stands in the vocabulary `labels`; -1 for a missing or unlisted one.

    The vocabulary is a text file with one label a line, in the order the config gives, else lexicographic.
    """
    text = label_text(values, options)
    (path,) = tft.experimental.ptransform_analyzer(
        inputs=[text],
        ptransform=_WriteVocabulary(options.order),
        output_dtypes=[tf.string],
        output_shapes=[[]],
        output_asset_default_values=[b"label"],
        name="labels",
    )
    annotators.annotate_asset(VOCABULARY, VOCABULARY)
    # A table made here by hand would read its file again with every request, and fail once a server's file is gone.
    return tft.apply_vocabulary(text, path, default_value=-1)


def label_text(values: tf.Tensor | tf.SparseTensor, options: LabelOptions) -> tf.Tensor:
    """string [batch]: the label as people read it; "" where it is missing."""
    raw = dense_column(values)
    text = raw if raw.dtype == tf.string else tf.strings.as_string(raw, shortest=raw.dtype.is_floating)
    names = text
    for value, name in options.names.items():
        names = tf.where(tf.equal(text, value), name, names)
    return tf.where(is_missing(raw), "", names)


class _WriteVocabulary(tft_beam.PTransformAnalyzer):
    """Write the distinct labels to a file, and answer its path."""

    def __init__(self, order: Sequence[str]) -> None:
        super().__init__()
        self._order = tuple(order)

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        path = os.path.join(self.base_temp_dir, VOCABULARY)  # noqa: PTH118 (an object store's path is no pathlib path)
        return (
            batches
            | "Distinct" >> beam.CombineGlobally(_DistinctLabels())
            | "Write" >> beam.Map(_write_labels, path, self._order)
        )


class _DistinctLabels(beam.CombineFn):
    """The set of labels that occur."""

    def create_accumulator(self) -> set[bytes]:
        return set()

    def add_input(self, accumulator: set[bytes], batch: tuple[np.ndarray]) -> set[bytes]:
        accumulator.update(label for label in np.unique(batch[0].astype(object)) if label)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[set[bytes]]) -> set[bytes]:
        return set().union(*accumulators)

    def extract_output(self, accumulator: set[bytes]) -> list[bytes]:
        return sorted(accumulator)


def _write_labels(found: list[bytes], path: str, order: Sequence[str]) -> np.ndarray:
    labels = [label.encode() for label in order] or found
    tf.io.gfile.makedirs(os.path.dirname(path))  # noqa: PTH120
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(b"".join(label + b"\n" for label in labels))
    return np.array(path.encode(), dtype=object)
