"""Train a head, and then the last blocks, on what the frozen part of a backbone makes of photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from trainers.backbone_blocks import backbone_blocks, check_blocks
from trainers.chosen_blocks import chosen_blocks
from trainers.compile_for_photos import compile_for_photos
from trainers.feature_training_batches import feature_training_batches, held_out_features
from trainers.frozen_features import frozen_features
from trainers.photo_training import PhotoTraining
from trainers.pooled_blocks import joined, pooled_blocks
from trainers.resumable_fit import resumable_fit
from trainers.ridge_head import RidgeHead, ridge_head

# The input of the blocks that are trained, among the features that are computed once.
ACTIVATIONS = "activations"


def train_from_features(backbone: keras.Model, training: PhotoTraining) -> keras.Model:
    """The trained model, from pixels to probabilities; normalization keeps the running means it came with.

    Raises:
        TrainingError: a block is named that there is not.
    """
    backbone.trainable = False
    options, rows, labels = training.options, training.rows, training.split.labels
    known = backbone_blocks(backbone)
    candidates = known if options.blocks == "auto" else options.blocks
    check_blocks(candidates, known)
    features = frozen_features(keras.Model(backbone.input, pooled_blocks(backbone, candidates)), training, "pooled")
    weights = training.class_weights[labels[rows]]
    trained_on = {block: features[block][:, rows] for block in candidates}
    if options.blocks == "auto":
        blocks = chosen_blocks(trained_on, labels[rows], training.classes, weights)
    else:
        blocks = list(candidates)
    joined_features = np.concatenate([trained_on[block] for block in blocks], axis=2)
    head = _head(ridge_head(joined_features, labels[rows], training.classes, weights))
    model = keras.Model(backbone.input, head(joined(list(pooled_blocks(backbone, blocks).values()))))
    if options.trained_blocks:
        trained = _train_blocks(backbone, known[: known.index(blocks[-1]) + 1], blocks, head, features, training)
        model.history = getattr(trained, "history", None)
    return model


def _head(solved: RidgeHead) -> keras.Model:
    classes = len(solved.bias)
    head = keras.Sequential(
        [
            keras.Input(solved.mean.shape),
            keras.layers.Normalization(mean=solved.mean, variance=solved.deviation**2),
            keras.layers.Dense(classes, activation="softmax"),
        ],
        name="head",
    )
    head.layers[-1].set_weights([solved.kernel, solved.bias])
    return head


def _train_blocks(
    backbone: keras.Model,
    known: Sequence[str],
    blocks: Sequence[str],
    head: keras.Model,
    features: Mapping[str, np.ndarray],
    training: PhotoTraining,
) -> keras.Model:
    """Train the last of the `known` blocks and the head, which share their layers with the whole model, in place.

    Returns:
        the model of these blocks and the head.
    """
    options, rows = training.options, training.rows
    frozen, trained = known[: -options.trained_blocks], known[-options.trained_blocks :]
    bottom = backbone.get_layer(frozen[-1]).output if frozen else backbone.input
    activations = frozen_features(keras.Model(backbone.input, {ACTIVATIONS: bottom}), training, ACTIVATIONS)
    top = keras.Model(bottom, pooled_blocks(backbone, [block for block in blocks if block in trained]))
    for layer in top.layers:
        # Running means stay as they are, and so do the weights that go with them.
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)

    inputs = {ACTIVATIONS: keras.Input(bottom.shape[1:], name=ACTIVATIONS)}
    inputs |= {block: keras.Input(features[block].shape[2:], name=block) for block in blocks if block in frozen}
    made = inputs | top(inputs[ACTIVATIONS])
    model = keras.Model(inputs, head(joined([made[block] for block in blocks])))
    compile_for_photos(model, training)
    values = {name: activations[name] if name in activations else features[name] for name in inputs}
    held_out = np.flatnonzero(training.split.held_out)
    resumable_fit(
        model,
        feature_training_batches(values, rows, training),
        training.steps,
        options.epochs,
        training.folder / "epochs",
        validation=held_out_features(values, held_out, training) if options.early_stopping_patience else None,
        patience=options.early_stopping_patience,
    )
    return model
