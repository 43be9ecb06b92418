"""Training data in memory, as batches."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from trainers.dense_batch import Column, dense_batch

Rows = tuple[Mapping[str, Column], np.ndarray]
# Among the rows of so many batches, those of like length come into one batch.
BATCHES_SORTED_TOGETHER = 16


def shuffled_batches(rows: Rows, batch_size: int, seed: int) -> tf.data.Dataset:
    """The rows in a new order in each pass, without end.

    One iterator serves all epochs (given arrays, Keras makes a new one for each, which costs more than an epoch over
    small data), and rows are gathered a batch at a time. Ragged columns are filled up to the longest row of their
    batch; so that this is little, rows that follow one another in the new order are put into batches by their length.
    """
    features, labels = rows
    count = len(labels)
    # As tensors, once; what is an array here would be a constant of the dataset's graph.
    columns = {
        name: values if isinstance(values, tf.RaggedTensor) else tf.constant(values)
        for name, values in features.items()
    }
    numbers = tf.constant(labels)
    lengths = [values.row_lengths() for values in columns.values() if isinstance(values, tf.RaggedTensor)]

    def one_pass(_: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.shuffle(tf.range(count), seed=seed)
        if lengths:
            order = _by_length(order, tf.add_n(lengths), batch_size, seed)
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size)

    batches = tf.data.Dataset.counter().flat_map(one_pass)
    return batches.map(lambda chosen: (dense_batch(columns, chosen), tf.gather(numbers, chosen))).prefetch(
        tf.data.AUTOTUNE
    )


def _by_length(order: tf.Tensor, lengths: tf.Tensor, batch_size: int, seed: int) -> tf.Tensor:
    """The rows of each BATCHES_SORTED_TOGETHER batches sorted by length; whole batches in any order, the rest last."""
    neighbours = tf.cast(tf.range(tf.size(order)) // (BATCHES_SORTED_TOGETHER * batch_size), tf.int64)
    longest = tf.reduce_max(lengths) + 1
    order = tf.gather(order, tf.argsort(neighbours * longest + tf.gather(lengths, order)))
    whole = tf.size(order) // batch_size * batch_size
    batches = tf.random.shuffle(tf.reshape(order[:whole], [-1, batch_size]), seed=seed)
    return tf.concat([tf.reshape(batches, [-1]), order[whole:]], axis=0)
