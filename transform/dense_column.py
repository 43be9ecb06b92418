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
        # A column that is missing from the whole batch has width 0: it must be one wide all the same. Raw operations:
        # the graph is traced ten times, and the functions around them make twice as many.
        values = tf.raw_ops.SparseToDense(
            sparse_indices=values.indices,
            output_shape=tf.raw_ops.Maximum(x=values.dense_shape, y=tf.constant([0, 1], tf.int64)),
            sparse_values=values.values,
            default_value=tf.constant(missing_value(values.dtype.name), values.dtype),
        )
        return tf.gather(values, 0, axis=1)
    return tf.reshape(values, [-1])
