"""Training data in memory, as batches."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

Rows = tuple[dict[str, np.ndarray], np.ndarray]


def shuffled_batches(rows: Rows, batch_size: int, seed: int) -> tf.data.Dataset:
    """The rows in a new order in each pass, without end.

    One iterator serves all epochs (given arrays, Keras makes a new one for each, which costs more than an epoch over
    small data), and rows are gathered a batch at a time.
    """
    count = len(rows[1])
    tensors = tf.nest.map_structure(tf.constant, rows)

    def one_pass(_: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(tf.random.shuffle(tf.range(count), seed=seed)).batch(batch_size)

    batches = tf.data.Dataset.counter().flat_map(one_pass)
    return batches.map(
        lambda chosen: tf.nest.map_structure(lambda values: tf.gather(values, chosen), tensors)
    ).prefetch(tf.data.AUTOTUNE)
