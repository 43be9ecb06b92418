"""Training data in memory, as batches."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from trainers.dense_batch import Column, dense_batch

Rows = tuple[Mapping[str, Column], np.ndarray]


def shuffled_batches(rows: Rows, batch_size: int, seed: int) -> tf.data.Dataset:
    """The rows in a new order in each pass, without end.

    One iterator serves all epochs (given arrays, Keras makes a new one for each, which costs more than an epoch over
    small data), and rows are gathered a batch at a time.
    """
    features, labels = rows
    count = len(labels)
    # As tensors, once; what is an array here would be a constant of the dataset's graph.
    columns = {name: values if _is_ragged(values) else tf.constant(values) for name, values in features.items()}
    numbers = tf.constant(labels)

    def one_pass(_: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(tf.random.shuffle(tf.range(count), seed=seed)).batch(batch_size)

    batches = tf.data.Dataset.counter().flat_map(one_pass)
    return batches.map(lambda chosen: (dense_batch(columns, chosen), tf.gather(numbers, chosen))).prefetch(
        tf.data.AUTOTUNE
    )


def _is_ragged(values: Column) -> bool:
    return isinstance(values, tf.RaggedTensor)
