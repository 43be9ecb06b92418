"""Batches to train on, decoded from photos in each epoch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from serving.export import LABEL
from serving.signatures.image import IMAGE
from trainers.augmented import augmented
from trainers.fine_tune_options import FineTuneOptions
from trainers.photo_training import PhotoTraining
from trainers.photos import Batch, is_held_out, is_usable

# Encoded photos in memory. The files hold them in an order that has nothing to do with their classes already.
SHUFFLED = 512


def photo_training_batches(training: PhotoTraining) -> Callable[[int], tf.data.Dataset]:
    """The first epoch -> batches of pixels, one-hot labels and weights, without end, in a new order in each epoch."""
    options, photos, weights = training.options, training.photos, training.class_weights

    def batches(first: int) -> tf.data.Dataset:
        seed = options.seed * 1000 + first

        @tf.autograph.experimental.do_not_convert
        def changed(step: tf.Tensor, batch: Batch) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            pixels = augmented(batch[IMAGE], options.augmentation, training.scaling, tf.stack([seed, step]))
            return pixels, *targets(batch[LABEL], weights)

        records = photos.records.shuffle(SHUFFLED, seed=seed, reshuffle_each_iteration=True).repeat()
        kept = photos.batches(options.batch_size, records).map(_kept(options))
        return kept.unbatch().batch(options.batch_size).enumerate().map(changed).prefetch(1)

    return batches


def held_out_photos(training: PhotoTraining) -> tf.data.Dataset:
    """Batches of the photos that early stopping looks at."""
    weights = training.class_weights

    @tf.autograph.experimental.do_not_convert
    def held_out(batch: Batch) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        chosen = tf.logical_and(is_usable(batch), is_held_out(batch))
        return tf.boolean_mask(batch[IMAGE], chosen), *targets(tf.boolean_mask(batch[LABEL], chosen), weights)

    return training.photos.batches(training.options.batch_size).map(held_out)


def targets(labels: tf.Tensor, class_weights: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
    """float32 [batch, classes] and float32 [batch]: one-hot labels, and how much each photo counts."""
    return tf.one_hot(labels, len(class_weights)), tf.gather(tf.constant(class_weights, tf.float32), labels)


def _kept(options: FineTuneOptions) -> Callable[[Batch], Batch]:
    @tf.autograph.experimental.do_not_convert
    def kept(batch: Batch) -> Batch:
        chosen = is_usable(batch)
        if options.early_stopping_patience:
            chosen = tf.logical_and(chosen, tf.logical_not(is_held_out(batch)))
        return {name: tf.boolean_mask(batch[name], chosen) for name in (IMAGE, LABEL)}

    return kept
