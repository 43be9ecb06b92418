"""Wrapping of an image classifier that exists: Keras models, SavedModels and TF-Hub handles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from trainers.artifacts import load_saved_model
from trainers.errors import TrainingError, first_line
from trainers.image.backbones import pixels_as_trained
from trainers.image.models import ImageClassifier
from trainers.image.options import BACKBONES, BLUE_GREEN_RED, IMAGENET, STANDARDISED, WrapOptions
from transform.options import ImageOptions

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
