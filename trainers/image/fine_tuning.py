"""Fine-tuning of image classifiers, from frozen features or from scratch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainers.devices import ONE_DEVICE, Devices, training_devices
from trainers.fitting import FusedAdam, resumable_fit
from trainers.image.backbones import (
    backbone_blocks,
    check_blocks,
    image_backbone,
    joined,
    pooled_blocks,
    with_chosen_backbone,
)
from trainers.image.batches import (
    FrozenFeatures,
    ImageTraining,
    feature_training_batches,
    frozen_features,
    held_out_features,
    held_out_images,
    image_training_batches,
)
from trainers.image.heads import RidgeHead, chosen_blocks, ridge_head
from trainers.image.models import ImageClassifier
from trainers.image.options import AUTO, FineTuneOptions
from trainers.warm_start import MeaningOfWeights, meaning_of_served, start_warm
from transform.options import ImageOptions


@dataclass(frozen=True)
class ImageWarmStart:
    """What a training of photos may begin with.

    Attributes:
        meaning: of the weights of the model that is to be trained, but for the blocks that its head sees.
        served: a copy of the served model's directory; an empty path where nothing is served.
    """

    meaning: MeaningOfWeights
    served: str

    def of_backbone(self, backbone: keras.Model, options: FineTuneOptions) -> ImageWarmStart:
        """The same for a model with this backbone, which has the weights that are configured."""
        # Of other weights the served model does not go on, though they have the same shapes.
        weights = options.weights if options.from_scratch else _fingerprint(backbone)
        return ImageWarmStart(
            self.meaning.model_copy(update={"backbone": {"name": options.backbone, "weights": weights}}), self.served
        )

    def meaning_with(self, blocks: Sequence[int]) -> MeaningOfWeights:
        """The meaning of the weights of a model whose head sees these blocks, by their numbers."""
        return self.meaning.model_copy(update={"backbone": {**self.meaning.backbone, "blocks": list(blocks)}})

    def served_blocks(self) -> tuple[int, ...]:
        """The blocks that the served model's head sees; () where nothing is served, or another backbone."""
        before = meaning_of_served(self.served)
        blocks = tuple(before.backbone.get("blocks", ())) if before else ()
        return blocks if before and before.backbone == self.meaning_with(blocks).backbone else ()

    def begin(self, model: keras.Model, blocks: Sequence[int]) -> str:
        """Give an untrained model the served one's weights, where they mean the same; see start_warm."""
        return start_warm(model, self.meaning_with(blocks), self.served)


def _fingerprint(backbone: keras.Model) -> str:
    digest = hashlib.sha256()
    for weight in backbone.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()


def compile_classifier(model: keras.Model, training: ImageTraining, devices: Devices = ONE_DEVICE) -> None:
    """Adam with a cosine-decayed step size; cross-entropy of one-hot labels, smoothed as the options say."""
    options = training.options
    step_size = keras.optimizers.schedules.CosineDecay(options.learning_rate, training.steps * options.epochs)
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=options.label_smoothing)
    devices.compile(model, lambda: FusedAdam(step_size), loss=loss)


def _fit(
    model: keras.Model,
    batches: Callable[[int], tf.data.Dataset],
    held_out: Callable[[], tf.data.Dataset],
    training: ImageTraining,
) -> None:
    """Train in place, on the devices of the options."""
    options, devices = training.options, training_devices(training.options)
    learner = devices.learner(model)
    compile_classifier(learner, training, devices)
    resumable_fit(
        learner,
        lambda first: devices.batches(batches(first)),
        training.steps,
        options.epochs,
        training.folder / "epochs",
        validation=devices.batches(held_out()) if options.early_stopping_patience else None,
        patience=options.early_stopping_patience,
    )
    devices.take_back(model, learner)


@dataclass(frozen=True)
class TrainedClassifier:
    """A model of photos, and how it came about.

    Attributes:
        model: from pixels to probabilities, not compiled: what is saved of it has no optimizer's state.
        blocks: the blocks that the head sees, by their numbers among those of the backbone.
        start: from where the training began, for people; empty where it was to begin as any.
    """

    model: keras.Model
    blocks: tuple[int, ...]
    start: str


def train_from_scratch(
    backbone: keras.Model, training: ImageTraining, warm_start: ImageWarmStart | None
) -> TrainedClassifier:
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
    _fit(model, image_training_batches(training), lambda: held_out_images(training), training)
    trained = keras.Model(model.input, model.output)
    trained.history = getattr(model, "history", None)
    return TrainedClassifier(trained, numbers, start)


# The input of the blocks that are trained, among the features that are computed once.
ACTIVATIONS = "activations"


def train_from_features(
    backbone: keras.Model, training: ImageTraining, warm_start: ImageWarmStart | None
) -> TrainedClassifier:
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
    trained_on = features.of_photos(rows)
    told = labels[rows][trained_on.photos]
    weights, judged = training.class_weights[told], trained_on.judged
    if options.blocks == "auto" and not start.blocks:
        blocks = chosen_blocks(trained_on.values, told, training.classes, weights, judged)
    else:
        blocks = list(candidates)
    head = start.head
    if head is None:
        joined_features = np.concatenate([trained_on.values[block] for block in blocks], axis=1)
        head = _solved_head(ridge_head(joined_features, told, training.classes, weights, judged))
    model = keras.Model(backbone.input, head(joined(list(pooled_blocks(backbone, blocks).values()))))
    if options.trained_blocks:
        trained = _train_blocks(backbone, known[: known.index(blocks[-1]) + 1], blocks, head, features, training)
        model.history = getattr(trained, "history", None)
    return TrainedClassifier(model, tuple(known.index(block) for block in blocks), start.said)


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


def _begin(backbone: keras.Model, known: Sequence[str], training: ImageTraining, warm_start: ImageWarmStart) -> _Start:
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
    features: FrozenFeatures,
    training: ImageTraining,
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
    pooled = features.values
    inputs |= {block: keras.Input(pooled[block].shape[1:], name=block) for block in blocks if block in frozen}
    made = inputs | top(inputs[ACTIVATIONS])
    model = keras.Model(inputs, head(joined([made[block] for block in blocks])))
    made_once = {**pooled, **activations.values}
    values = FrozenFeatures({name: made_once[name] for name in inputs}, features.photos)
    held_out = np.flatnonzero(training.split.held_out)
    _fit(
        model,
        feature_training_batches(values, rows, training),
        lambda: held_out_features(values, held_out, training),
        training,
    )
    return model


def fine_tuned(
    training: ImageTraining, preprocessing: ImageOptions, warm_start: ImageWarmStart | None = None
) -> ImageClassifier:
    """Train a backbone and a head on a split of photos.

    Args:
        training: the split, and how to train.
        preprocessing: size and scaling of the pixels.
        warm_start: what to begin with, if it is to be the served model.

    Raises:
        TrainingError: the weights of the backbone, or of all that `auto` tries, cannot be had, or a block is named that
            there is not.
    """
    options = training.options
    chooses, tried = options.backbone == AUTO, dict[str, Any]()
    if chooses:
        options, tried = with_chosen_backbone(training, preprocessing)
        training = replace(training, options=options)
    keras.utils.set_random_seed(options.seed)
    backbone = image_backbone(options.backbone, options.weights, preprocessing, for_several=chooses)
    if warm_start is not None:
        warm_start = warm_start.of_backbone(backbone, options)
    train = train_from_scratch if options.from_scratch else train_from_features
    trained = train(backbone, training, warm_start)
    model = trained.model
    meaning = None if warm_start is None else warm_start.meaning_with(trained.blocks)
    return ImageClassifier(lambda pixels: model(pixels, training=False), model, trained.start, meaning, tried)
