"""Batches to train on, of features that were computed once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tensorflow as tf

from trainers.photo_training import PhotoTraining
from trainers.photo_training_batches import targets

Features = Mapping[str, np.ndarray]


def feature_training_batches(
    features: Features, rows: np.ndarray, training: PhotoTraining
) -> Callable[[int], tf.data.Dataset]:
    """The first epoch -> batches of features by name, one-hot labels and weights, without end.

    Each epoch has one of the copies of each photo; order and copies go by the epoch's number.

    Args:
        features: name -> [copies, n, ...], on disk; a batch at a time is in memory.
        rows: int [m], which of the n photos to train on.
        training: their labels, and how to train.
    """
    options, labels = training.options, training.split.labels

    def batches(first: int) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        for epoch in itertools.count(first):
            chance = np.random.default_rng((options.seed, epoch))
            copies = next(iter(features.values())).shape[0]
            order, copy = chance.permutation(rows), chance.integers(copies, size=len(rows))
            for start in range(0, len(rows), options.batch_size):
                part = slice(start, start + options.batch_size)
                yield _gathered(features, copy[part], order[part]), labels[order[part]]

    return lambda first: _dataset(lambda: batches(first), features, training.class_weights)


def held_out_features(features: Features, rows: np.ndarray, training: PhotoTraining) -> tf.data.Dataset:
    """Batches of the photos as they are, for early stopping."""

    def batches() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        for start in range(0, len(rows), training.options.batch_size):
            chosen = rows[start : start + training.options.batch_size]
            yield _gathered(features, np.zeros_like(chosen), chosen), training.split.labels[chosen]

    return _dataset(batches, features, training.class_weights)


def _gathered(features: Features, copy: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[copy, rows].astype(np.float32) for name, values in features.items()}


def _dataset(
    batches: Callable[[], Iterator[tuple[dict[str, np.ndarray], np.ndarray]]],
    features: Features,
    class_weights: np.ndarray,
) -> tf.data.Dataset:
    specs = {name: tf.TensorSpec([None, *values.shape[2:]], tf.float32) for name, values in features.items()}
    dataset = tf.data.Dataset.from_generator(batches, output_signature=(specs, tf.TensorSpec([None], tf.int64)))
    return dataset.map(lambda values, labels: (values, *targets(labels, class_weights))).prefetch(1)
