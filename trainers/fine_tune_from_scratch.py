"""Train all layers of a backbone."""

from __future__ import annotations

import keras

from trainers.backbone_blocks import backbone_blocks, check_blocks
from trainers.compile_for_photos import compile_for_photos
from trainers.photo_training import PhotoTraining
from trainers.photo_training_batches import held_out_photos, photo_training_batches
from trainers.photo_warm_start import PhotoWarmStart
from trainers.pooled_blocks import joined, pooled_blocks
from trainers.resumable_fit import resumable_fit
from trainers.trained_photos import TrainedPhotos


def train_from_scratch(
    backbone: keras.Model, training: PhotoTraining, warm_start: PhotoWarmStart | None
) -> TrainedPhotos:
    """Train on photos that are decoded, and changed, anew in each epoch.

    Args:
        backbone: untrained.
        training: on what, and how.
        warm_start: what all layers begin with, where they are to begin with the served model's.

    Raises:
        TrainingError: a block is named that there is not.
    """
    options = training.options
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = options.batch_norm_momentum
    known = backbone_blocks(backbone)
    blocks = known[-1:] if options.blocks == "auto" else options.blocks
    check_blocks(blocks, known)
    features = joined(list(pooled_blocks(backbone, blocks).values()))
    model = keras.Model(
        backbone.input, keras.layers.Dense(training.classes, activation="softmax", name="head")(features)
    )
    numbers = tuple(known.index(block) for block in blocks)
    start = warm_start.begin(model, numbers) if warm_start else ""
    compile_for_photos(model, training)
    resumable_fit(
        model,
        photo_training_batches(training),
        training.steps,
        options.epochs,
        training.folder / "epochs",
        validation=held_out_photos(training) if options.early_stopping_patience else None,
        patience=options.early_stopping_patience,
    )
    trained = keras.Model(model.input, model.output)
    trained.history = getattr(model, "history", None)
    return TrainedPhotos(trained, numbers, start)
