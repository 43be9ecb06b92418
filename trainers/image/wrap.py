"""Wrapping of an image classifier that exists: Keras models, SavedModels and TF-Hub handles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

import keras
import numpy as np
import tensorflow as tf

from serving.signatures.common import LABEL
from serving.signatures.image import ERROR, IMAGE
from trainers.artifacts import load_saved_model
from trainers.errors import TrainingError, first_line
from trainers.image.backbones import pixels_as_trained
from trainers.image.models import ImageClassifier
from trainers.image.options import BACKBONES, BLUE_GREEN_RED, IMAGENET, STANDARDISED, WrapOptions
from trainers.image.splits import BATCH_SIZE, Images
from transform.image import scale, unscaled
from transform.options import ImageOptions, Scaling

Shape = tuple[int, int, int]


def wrapped_keras_model(options: WrapOptions, preprocessing: ImageOptions, outputs: int) -> keras.Model:
    """The model, with its head, from pixels as `preprocessing` makes them to `outputs` numbers.

    Raises:
        TrainingError: it cannot be loaded, or does not take these pixels.
    """
    shape = (preprocessing.height, preprocessing.width, 3)
    if options.classifier not in BACKBONES:
        return _load(options.classifier, shape)
    model = _named(options, shape, outputs)
    if preprocessing.scaling != "raw" or options.classifier not in (*BLUE_GREEN_RED, *STANDARDISED):
        return model
    pixels = keras.Input(shape, name="pixels")
    return keras.Model(pixels, model(pixels_as_trained(options.classifier, pixels)))


def _named(options: WrapOptions, shape: Shape, outputs: int) -> keras.Model:
    if options.weights == IMAGENET:
        return _with_imagenet_weights(options.classifier, shape)
    model = _construct(options.classifier, shape, None, outputs)
    try:
        model.load_weights(options.weights)
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{options.weights}: these weights cannot be loaded into a {options.classifier} with {outputs} outputs "
            f"that takes {shape[0]}x{shape[1]} pixels: {first_line(error)}; give this model's weights with its head, "
            "and its labels"
        ) from error
    return model


def _load(path: str, shape: Shape) -> keras.Model:
    try:
        model = keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(
            f"{path}: the model cannot be loaded: {first_line(error)}; save it by model.save with Keras 3, "
            "without classes of your own in it"
        ) from error
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise TrainingError(
            f"{path}: the model has {len(model.inputs)} inputs and {len(model.outputs)} outputs, expected one of each; "
            "save a model from pixels to the classes"
        )
    expected = tuple(model.inputs[0].shape[1:])
    if len(expected) != 3 or any(size not in (None, given) for size, given in zip(expected, shape, strict=True)):
        raise TrainingError(
            f"{path}: the model takes pixels of the shape {expected}, preprocessing makes {shape}; set "
            "preprocessing.height and preprocessing.width to what it takes"
        )
    return model


def _with_imagenet_weights(name: str, shape: Shape) -> keras.Model:
    try:
        return _construct(name, shape, IMAGENET, 1000)
    except Exception as error:
        # Keras raises a bare Exception where a download fails.
        if isinstance(error, TrainingError) or "URL fetch failure" not in str(error):
            raise
        raise TrainingError(
            f"the ImageNet weights of {name} cannot be downloaded ({first_line(error)}); set trainer.weights to a "
            ".weights.h5 file with the head, or trainer.classifier to a .keras file or a directory of a SavedModel"
        ) from error


def _construct(name: str, shape: Shape, weights: str | None, outputs: int) -> keras.Model:
    try:
        return getattr(keras.applications, name)(include_top=True, weights=weights, input_shape=shape, classes=outputs)
    except ValueError as error:
        raise TrainingError(
            f"{name} cannot take photos of {shape[0]}x{shape[1]} pixels: {first_line(error)}; leave "
            "preprocessing.height and preprocessing.width out, to take what it was made for"
        ) from error


def wrapped_saved_model(options: WrapOptions, preprocessing: ImageOptions) -> Callable[[tf.Tensor], tf.Tensor]:
    """Pixels as `preprocessing` makes them -> the chosen output of the chosen signature.

    Its variables can be frozen, so the export needs no checkpoint and no loader but TensorFlow Serving's own.

    Raises:
        TrainingError: it cannot be loaded, or has no such signature or output, or takes other inputs.
    """
    loaded = load_saved_model(options.classifier, "trainer.classifier")
    signature = _signature(loaded, options)
    name = _pixel_input(signature, options.classifier, preprocessing)
    output = _output(signature, options)

    def call(pixels: tf.Tensor) -> tf.Tensor:
        return signature(**{name: pixels})[output]

    call.model = loaded  # type: ignore[attr-defined]  # its variables live as long as it does
    return call


def _signature(loaded: Any, options: WrapOptions) -> Any:
    if options.signature not in loaded.signatures:
        raise TrainingError(
            f"{options.classifier} has no signature {options.signature!r}; set trainer.signature to one of its own: "
            f"{', '.join(sorted(loaded.signatures)) or 'there are none'}"
        )
    return loaded.signatures[options.signature]


def _pixel_input(signature: Any, classifier: str, preprocessing: ImageOptions) -> str:
    inputs = signature.structured_input_signature[1]
    if len(inputs) != 1:
        raise TrainingError(
            f"{classifier} takes the inputs {', '.join(sorted(inputs))}, expected only pixels; wrap it in a function "
            "of pixels, and save that"
        )
    ((name, spec),) = inputs.items()
    given = tf.TensorSpec([None, preprocessing.height, preprocessing.width, 3], tf.float32)
    if spec.dtype != given.dtype or not spec.shape.is_compatible_with(given.shape) or _fixed_batch(spec):
        raise TrainingError(
            f"{classifier} takes {spec.dtype.name} {spec.shape}, preprocessing makes {given.dtype.name} {given.shape}; "
            "set preprocessing.height and preprocessing.width to what it takes, or save it with another signature"
        )
    return str(name)


def _fixed_batch(spec: tf.TensorSpec) -> bool:
    return spec.shape.rank is not None and spec.shape[0] is not None


def _output(signature: Any, options: WrapOptions) -> str:
    outputs = sorted(signature.structured_outputs)
    if options.output in outputs:
        return str(options.output)
    if options.output is None and len(outputs) == 1:
        return str(outputs[0])
    wanted = "has several outputs" if options.output is None else f"has no output {options.output!r}"
    raise TrainingError(f"{options.classifier} {wanted}; set trainer.output to one of {', '.join(outputs)}")


Function = Callable[[tf.Tensor], tf.Tensor]


def wrapped_classifier(options: WrapOptions, preprocessing: ImageOptions, classes: int) -> ImageClassifier:
    """The classifier that the options name, whose answers are probabilities of the labels.

    Args:
        options: where it is, and its conventions.
        preprocessing: the pixels that it gets.
        classes: how many labels there are.

    Raises:
        TrainingError: it cannot be loaded, or does not fit the pixels or the labels.
    """
    outputs = classes + 1 if options.background_first else classes
    if options.is_keras_model:
        model = wrapped_keras_model(options, preprocessing, outputs)
        return ImageClassifier(_probabilities(lambda pixels: model(pixels, training=False), outputs, options), model)
    function = wrapped_saved_model(options, preprocessing)
    return ImageClassifier(_probabilities(function, outputs, options), model=None)


def _probabilities(function: Function, outputs: int, options: WrapOptions) -> Function:
    """Pixels -> probabilities, float32 [batch, classes], of what answers with so many `outputs`."""

    def predict(pixels: tf.Tensor) -> tf.Tensor:
        answers = function(pixels)
        if answers.shape.rank != 2 or answers.shape[1] != outputs:
            background = ", one of them the background (trainer.background_first)" if options.background_first else ""
            raise TrainingError(
                f"{options.classifier} answers with {answers.shape}, expected [batch, {outputs}] for the labels of "
                f"{options.labels}{background}; give its labels, and say whether its first output is the background"
            )
        if options.background_first:
            answers = answers[:, 1:]
        if options.outputs == "logits":
            return tf.nn.softmax(answers)
        # Without the background, what is left of the probabilities is shared among the labels.
        return answers / tf.reduce_sum(answers, axis=1, keepdims=True) if options.background_first else answers

    return predict


# So many photos tell a wrong scaling from the right one, and take seconds.
TRIED_PHOTOS = 64
# Photos with a label of the classifier decide where there are so many; otherwise the answers themselves.
FEWEST_TOLD = 10
# How much less the answers tell the photos apart than under another scaling, as a share and in bits.
_LEAST_SHARE, _LEAST_BITS = 0.93, 0.2
# Who is surer of everything than that is out of the range that was learned.
_TOO_SURE = 0.99
# Of the standard deviation of a difference that chance makes.
_SURE = 2.5


@dataclass(frozen=True)
class ScalingTrial:
    """What a classifier answers to photos under one scaling.

    Attributes:
        confidence: the mean of the best label's probability.
        labels: how many different labels are the best of some photo.
        bits: how much the answers tell the photos apart: the entropy of the mean answer less the mean entropy.
        right: how many photos with a known label got it.
    """

    confidence: float
    labels: int
    bits: float
    right: int


@dataclass(frozen=True)
class ScalingTrials:
    """The trials of all scalings.

    Attributes:
        photos: how many there were.
        told: how many of them have a label that the classifier knows.
        trials: by scaling.
        better: scaling -> by how many standard deviations of chance more photos are right than under the chosen one.
    """

    photos: int
    told: int
    trials: Mapping[str, ScalingTrial]
    better: Mapping[str, float]

    def as_provenance(self) -> dict[str, Any]:
        """For the provenance of the model; what is said there is for people."""
        trials = {name: asdict(trial) for name, trial in self.trials.items()}
        found = {"said": str(self), "photos": self.photos, "told": self.told, "trials": trials}
        return {"scalings": found} if self.photos else {}

    def __str__(self) -> str:
        shown = [
            f"{name}: confidence {trial.confidence:.2f}, {trial.labels} labels, {trial.bits:.1f} bits"
            + f", {trial.right} right" * (self.told > 0)
            for name, trial in self.trials.items()
        ]
        told = f" ({self.told} of them labelled)" * (self.told > 0)
        return f"answers to {self.photos} photos{told} by preprocessing.scaling: {'; '.join(shown)}"


def tried_scalings(classifier: ImageClassifier, preprocessing: ImageOptions, photos: Images) -> ScalingTrials:
    """Ask a classifier for the same photos under each scaling.

    Args:
        classifier: traced.
        preprocessing: with the scaling that was chosen, as the pixels of `photos` are.
        photos: as Transform's graph makes them.
    """
    pixels, labels = _some_photos(photos)
    answers = {name: _answers(classifier, pixels, preprocessing.scaling, name) for name in get_args(Scaling)}
    told = labels >= 0
    right = {name: (found.argmax(axis=1) == labels) & told for name, found in answers.items()}
    chosen = right[preprocessing.scaling]
    differ = {name: max(int((found != chosen).sum()), 1) for name, found in right.items()}
    return ScalingTrials(
        photos=len(labels),
        told=int(told.sum()),
        trials={name: _trial(found, int(right[name].sum())) for name, found in answers.items()},
        # As McNemar compares: only photos that one of both gets right tell them apart.
        better={name: (int(right[name].sum()) - int(chosen.sum())) / differ[name] ** 0.5 for name in right},
    )


def _some_photos(photos: Images) -> tuple[np.ndarray, np.ndarray]:
    """The pixels and labels of the first TRIED_PHOTOS that can be used, labels -1 where the classifier has none."""
    pixels: list[np.ndarray] = []
    labels = np.zeros([0], np.int64)
    for batch in photos.read(BATCH_SIZE):
        good = batch[ERROR].numpy() == b""
        pixels.append(batch[IMAGE].numpy()[good])
        labels = np.concatenate([labels, batch[LABEL].numpy()[good]])
        if len(labels) >= TRIED_PHOTOS:
            break
    return np.concatenate(pixels)[:TRIED_PHOTOS] if pixels else np.zeros([0, 1, 1, 3]), labels[:TRIED_PHOTOS]


def _answers(classifier: ImageClassifier, pixels: np.ndarray, given: Scaling, tried: Scaling) -> np.ndarray:
    rows = [
        classifier.predict(scale(unscaled(tf.constant(pixels[start : start + BATCH_SIZE]), given), tried)).numpy()
        for start in range(0, len(pixels), BATCH_SIZE)
    ]
    return np.concatenate(rows) if rows else np.zeros([0, 1])


def _trial(answers: np.ndarray, right: int) -> ScalingTrial:
    if not len(answers):
        return ScalingTrial(0.0, 0, 0.0, 0)
    bits = _entropy(answers.mean(axis=0)) - _entropy(answers).mean()
    labels = len(np.unique(answers.argmax(axis=1)))
    return ScalingTrial(float(answers.max(axis=1).mean()), labels, float(bits), right)


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    """In bits, of the last axis."""
    values = np.clip(probabilities.astype(np.float64), 1e-12, 1)
    return -(values * np.log2(values)).sum(axis=-1)


def check_scaling(trials: ScalingTrials, scaling: Scaling) -> None:
    """Refuse a scaling under which the classifier answers clearly worse than under another.

    Labelled photos decide; without them, how much the answers tell the photos apart: pixels out of the range that a
    network knows make it sure of the same few labels, or sure of none.

    Raises:
        TrainingError: the scaling looks wrong.
    """
    if trials.told >= FEWEST_TOLD:
        best = max(trials.better, key=lambda name: trials.better[name])
        wrong = trials.better[best] > _SURE
        why = f"more labelled photos are right as {best}"
    else:
        sure = max(_TOO_SURE, trials.trials[scaling].confidence)
        plausible = [name for name, trial in trials.trials.items() if trial.confidence <= sure]
        best = max([scaling, *plausible], key=lambda name: trials.trials[name].bits)
        here, there = trials.trials[scaling].bits, trials.trials[best].bits
        wrong = trials.photos >= FEWEST_TOLD and here < _LEAST_SHARE * there and here < there - _LEAST_BITS
        why = f"answers tell the photos apart better as {best}"
    if wrong:
        raise TrainingError(
            f"preprocessing.scaling: {scaling} looks wrong, {why}: {trials}; set preprocessing.scaling: {best}, "
            "or give photos in folders named as the classifier's labels if you know better"
        )
