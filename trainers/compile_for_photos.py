"""Optimizer and loss of a training of photos."""

from __future__ import annotations

import keras

from trainers.fused_adam import FusedAdam
from trainers.photo_training import PhotoTraining


def compile_for_photos(model: keras.Model, training: PhotoTraining) -> None:
    """Adam with a cosine-decayed step size; cross-entropy of one-hot labels, smoothed as the options say."""
    options = training.options
    step_size = keras.optimizers.schedules.CosineDecay(options.learning_rate, training.steps * options.epochs)
    model.compile(
        optimizer=FusedAdam(step_size),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=options.label_smoothing),
        jit_compile=False,
    )
