"""Labels: their ids, and the vocabulary that numbers them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform import annotators
from tensorflow_transform.beam import experimental as tft_beam

from serving.missing_values import missing_value
from serving.signatures.common import VOCABULARY, is_missing
from transform.errors import PreprocessingError
from transform.options import LabelOptions


def dense_column(values: tf.Tensor | tf.SparseTensor) -> tf.Tensor:
    """A column as a vector of shape [batch], what is missing replaced by `missing_value`.

    Takes a SparseTensor [batch, n] (a column that may be missing; the first value counts) or a Tensor [batch] or
    [batch, 1].
    """
    (dense,) = dense_columns({"": values}).values()
    return dense


def dense_columns(columns: Mapping[str, tf.Tensor | tf.SparseTensor]) -> dict[str, tf.Tensor]:
    """Each column as dense_column has it, in the order in which they are given.

    The sparse ones of a dtype become dense together: Transform traces, copies and looks at the graph some ten times,
    and its nodes are what that takes, whatever they compute.
    """
    of_dtype: dict[tf.DType, dict[str, tf.SparseTensor]] = {}
    for name, values in columns.items():
        if isinstance(values, tf.SparseTensor):
            of_dtype.setdefault(values.dtype, {})[name] = values
    dense = {
        name: column
        for together in of_dtype.values()
        for name, column in zip(together, tf.unstack(_dense_rows([*together.values()])), strict=True)
    }
    return {name: dense[name] if name in dense else tf.reshape(values, [-1]) for name, values in columns.items()}


def _dense_rows(columns: Sequence[tf.SparseTensor]) -> tf.Tensor:
    """[n, batch]: the first values of n columns, [batch, any] each."""
    # A column that is missing from the whole batch has width 0: it must be one wide all the same.
    shapes = [*(column.dense_shape for column in columns), tf.constant([0, 1], tf.int64)]
    shape = tf.raw_ops.Max(input=tf.stack(shapes), axis=0)
    indices, values = columns[0].indices, columns[0].values
    if len(columns) > 1:
        indices, values, shape = tf.raw_ops.SparseConcat(  # one below the other
            indices=[column.indices for column in columns],
            values=[column.values for column in columns],
            shapes=[shape] * len(columns),
            concat_dim=0,
        )
    dense = tf.raw_ops.SparseToDense(
        sparse_indices=indices,
        output_shape=shape,
        sparse_values=values,
        default_value=tf.constant(missing_value(values.dtype.name), values.dtype),
    )
    return tf.reshape(tf.gather(dense, 0, axis=1), [len(columns), -1])


def label_ids(values: tf.Tensor | tf.SparseTensor, options: LabelOptions) -> tf.Tensor:
    """int64 [batch]: where the label stands in the vocabulary `labels`; -1 for a missing or unlisted one.

    The vocabulary is a text file with one label a line, in the order the config gives, else lexicographic.
    """
    text = label_text(values, options)
    (path,) = tft.experimental.ptransform_analyzer(
        inputs=[text],
        ptransform=_WriteVocabulary(options),
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

    def __init__(self, options: LabelOptions) -> None:
        super().__init__()
        self._options = options

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        path = os.path.join(self.base_temp_dir, VOCABULARY)  # noqa: PTH118 (an object store's path is no pathlib path)
        return (
            batches
            | "Distinct" >> beam.CombineGlobally(_DistinctLabels())
            | "Write" >> beam.Map(_write_labels, path, self._options)
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


def _write_labels(found: list[bytes], path: str, options: LabelOptions) -> np.ndarray:
    labels = [label.encode() for label in options.order] or found
    try:
        options.number_of_positive([label.decode(errors="replace") for label in labels])
    except ValueError as error:
        raise PreprocessingError(str(error)) from None
    tf.io.gfile.makedirs(os.path.dirname(path))  # noqa: PTH120
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(b"".join(label + b"\n" for label in labels))
    return np.array(path.encode(), dtype=object)
