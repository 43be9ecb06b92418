"""One value per example, whatever the schema made of the column."""

from __future__ import annotations

import tensorflow as tf

from serving.missing_value import missing_value


def dense_column(values: tf.Tensor | tf.SparseTensor) -> tf.Tensor:
    """A column as a vector of shape [batch], what is missing replaced by `missing_value`.

    Takes a SparseTensor [batch, n] (a column that may be missing; the first value counts) or a Tensor [batch] or
    [batch, 1].
    """
    if isinstance(values, tf.SparseTensor):
        first = tf.sparse.slice(values, [0, 0], [values.dense_shape[0], 1])
        # A column that is missing from the whole batch has width 0: the slice must still be one wide.
        column = tf.SparseTensor(first.indices, first.values, [values.dense_shape[0], 1])
        values = tf.sparse.to_dense(column, default_value=missing_value(values.dtype.name))
    return tf.reshape(values, [-1])
