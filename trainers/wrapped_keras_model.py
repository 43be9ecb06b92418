"""A Keras model of photos that exists."""

from __future__ import annotations

import keras

from trainers.backbones import BACKBONES, BLUE_GREEN_RED, STANDARDISED
from trainers.first_line import first_line
from trainers.label_file import IMAGENET
from trainers.pixels_as_trained import pixels_as_trained
from trainers.training_error import TrainingError
from trainers.wrap_options import WrapOptions
from transform.image_options import ImageOptions

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
            f"that takes {shape[0]}x{shape[1]} pixels: {first_line(error)}; give the weights file of this model "
            "with its head, and the labels file with the labels of its outputs"
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
            ".weights.h5 file of the model with its head, or trainer.classifier to a .keras file, the directory of a "
            "SavedModel or a downloaded TF-Hub model"
        ) from error


def _construct(name: str, shape: Shape, weights: str | None, outputs: int) -> keras.Model:
    try:
        return getattr(keras.applications, name)(include_top=True, weights=weights, input_shape=shape, classes=outputs)
    except ValueError as error:
        raise TrainingError(
            f"{name} cannot take photos of {shape[0]}x{shape[1]} pixels: {first_line(error)}; leave "
            "preprocessing.height and preprocessing.width out, to take what it was made for"
        ) from error
