"""Train a head, and then the last blocks, on what the frozen part of a backbone makes of photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from trainers.backbone_blocks import backbone_blocks, check_blocks
from trainers.chosen_blocks import chosen_blocks
from trainers.compile_for_photos import compile_for_photos
from trainers.feature_training_batches import feature_training_batches, held_out_features
from trainers.frozen_features import frozen_features
from trainers.photo_training import PhotoTraining
from trainers.photo_warm_start import PhotoWarmStart
from trainers.pooled_blocks import joined, pooled_blocks
from trainers.resumable_fit import resumable_fit
from trainers.ridge_head import RidgeHead, ridge_head
from trainers.trained_photos import TrainedPhotos

# The input of the blocks that are trained, among the features that are computed once.
ACTIVATIONS = "activations"


def train_from_features(
    backbone: keras.Model, training: PhotoTraining, warm_start: PhotoWarmStart | None
) -> TrainedPhotos:
    """Train; normalization keeps the running means it came with.

    Args:
        backbone: with the weights that are configured.
        training: on what, and how.
        warm_start: what backbone and head begin with, where they are to begin with the served model's.

    Raises:
        TrainingError: a block is named that there is not.
    """
    backbone.trainable = False
    options, rows, labels = training.options, training.rows, training.split.labels
    known = backbone_blocks(backbone)
    check_blocks(known if options.blocks == "auto" else options.blocks, known)
    start = _begin(backbone, known, training, warm_start) if warm_start else _Start()
    candidates = start.blocks or (known if options.blocks == "auto" else options.blocks)
    features = frozen_features(keras.Model(backbone.input, pooled_blocks(backbone, candidates)), training, "pooled")
    weights = training.class_weights[labels[rows]]
    trained_on = {block: features[block][:, rows] for block in candidates}
    if options.blocks == "auto" and not start.blocks:
        blocks = chosen_blocks(trained_on, labels[rows], training.classes, weights)
    else:
        blocks = list(candidates)
    head = start.head
    if head is None:
        joined_features = np.concatenate([trained_on[block] for block in blocks], axis=2)
        head = _solved_head(ridge_head(joined_features, labels[rows], training.classes, weights))
    model = keras.Model(backbone.input, head(joined(list(pooled_blocks(backbone, blocks).values()))))
    if options.trained_blocks:
        trained = _train_blocks(backbone, known[: known.index(blocks[-1]) + 1], blocks, head, features, training)
        model.history = getattr(trained, "history", None)
    return TrainedPhotos(model, tuple(known.index(block) for block in blocks), start.said)


@dataclass(frozen=True)
class _Start:
    """What a training begins with.

    Attributes:
        said: of it, for people.
        blocks: whose features the served model's head sees; () where the training begins cold.
        head: the served model's; None where it is solved.
    """

    said: str = ""
    blocks: tuple[str, ...] = ()
    head: keras.Model | None = None


def _begin(backbone: keras.Model, known: Sequence[str], training: PhotoTraining, warm_start: PhotoWarmStart) -> _Start:
    """Give the backbone the served model's weights, if there is anything to be had by that."""
    options = training.options
    blocks = known[-1:] if options.blocks == "auto" else options.blocks
    if options.blocks == "auto" and warm_start.served_blocks():
        blocks = [known[number] for number in warm_start.served_blocks()]
    pooled = joined(list(pooled_blocks(backbone, blocks).values()))
    head = _head(pooled.shape[1], training.classes)
    configured = backbone.get_weights()
    said = warm_start.begin(keras.Model(backbone.input, head(pooled)), [known.index(block) for block in blocks])
    if said.startswith("cold"):
        return _Start(said)
    if all(map(np.array_equal, backbone.get_weights(), configured)):
        # Blocks are chosen and the head is solved on the photos there are now.
        return _Start("cold: no block of the served model was trained")
    if not options.trained_blocks:
        return _Start(f"{said}; its head is solved anew", tuple(blocks))
    return _Start(said, tuple(blocks), head)


def _head(width: int, classes: int) -> keras.Model:
    # Mean and variance are weights, which a later training can begin with.
    layers = [keras.Input([width]), keras.layers.Normalization(), keras.layers.Dense(classes, activation="softmax")]
    return keras.Sequential(layers, name="head")


def _solved_head(solved: RidgeHead) -> keras.Model:
    head = _head(*solved.kernel.shape)
    normalization, dense = head.layers
    normalization.set_weights([solved.mean, solved.deviation**2, np.int64(0)])
    normalization.finalize_state()
    dense.set_weights([solved.kernel, solved.bias])
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
