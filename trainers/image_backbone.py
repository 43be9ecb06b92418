"""A model of keras.applications without its head, and the weights to start from."""

from __future__ import annotations

import keras

from trainers.copied_weights import copy_weights
from trainers.fine_tune_options import IMAGENET, NO_WEIGHTS
from trainers.first_line import first_line
from trainers.pixels_as_trained import pixels_as_trained
from trainers.training_error import TrainingError
from transform.image_options import ImageOptions

Shape = tuple[int, int, int]


def image_backbone(name: str, weights: str, preprocessing: ImageOptions) -> keras.Model:
    """A Keras model from pixels as `preprocessing` makes them to what the last block makes of them.

    Args:
        name: one of trainers.backbones.BACKBONES.
        weights: `imagenet`, `none`, the path of a .weights.h5 file of the backbone or of a .keras file, or the
            directory or handle of a TF-Hub model.
        preprocessing: size and scaling of the pixels.

    Raises:
        TrainingError: the weights cannot be had, or do not fit.
    """
    shape = (preprocessing.height, preprocessing.width, 3)
    pixels = keras.Input(shape, name="pixels")
    as_trained = pixels_as_trained(name, pixels) if preprocessing.scaling == "raw" else pixels
    if weights == IMAGENET:
        return _with_imagenet_weights(name, shape, as_trained)
    if weights.endswith(".keras"):
        return _from_keras_file(weights, shape)
    if weights != NO_WEIGHTS and not weights.endswith(".h5"):
        return _from_saved_model(weights, pixels)
    # Weights go by the order of the layers: they are read before anything is put in front of them.
    backbone = _construct(name, shape, as_trained)
    if weights != NO_WEIGHTS:
        _load_weights(backbone, name, shape, weights)
    return backbone


def _construct(name: str, shape: Shape, pixels: keras.KerasTensor, weights: str | None = None) -> keras.Model:
    try:
        return getattr(keras.applications, name)(
            include_top=False, weights=weights, input_shape=shape, input_tensor=pixels
        )
    except ValueError as error:
        raise TrainingError(
            f"{name} cannot take photos of {shape[0]}x{shape[1]} pixels: {first_line(error)}; give other "
            "preprocessing.height and preprocessing.width, or leave them out"
        ) from error


def _with_imagenet_weights(name: str, shape: Shape, pixels: keras.KerasTensor) -> keras.Model:
    try:
        return _construct(name, shape, pixels, IMAGENET)
    except Exception as error:
        # Keras raises a bare Exception where a download fails.
        if isinstance(error, TrainingError) or "URL fetch failure" not in str(error):
            raise
        raise TrainingError(
            f"the ImageNet weights of {name} cannot be downloaded ({first_line(error)}); set trainer.weights to a "
            ".weights.h5 file of it without its head, a .keras file, or the directory of a TF-Hub model, or to none to "
            "train from scratch"
        ) from error


def _load_weights(backbone: keras.Model, name: str, shape: Shape, path: str) -> None:
    # The file knows nothing of the layers that turn pixels into what the backbone was trained on.
    bare = _construct(name, shape, keras.Input(shape))
    try:
        bare.load_weights(path)
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{path}: these weights cannot be loaded into a {name} without its head: {first_line(error)}; "
            "trainer.weights takes what save_weights made of keras.applications' model with include_top=False"
        ) from error
    added = len(backbone.layers) - len(bare.layers)
    for layer, source in zip(backbone.layers[added:], bare.layers, strict=True):
        copy_weights(source, layer)


def _from_keras_file(path: str, shape: Shape) -> keras.Model:
    try:
        model = keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(f"{path}: the model cannot be loaded: {first_line(error)}; save it by Keras 3") from error
    expected = tuple(model.inputs[0].shape[1:])
    if len(model.inputs) != 1 or any(size not in (None, given) for size, given in zip(expected, shape, strict=False)):
        raise TrainingError(
            f"{path}: the model takes {expected}, preprocessing makes {shape}; set preprocessing.height and "
            "preprocessing.width to what it takes"
        )
    return model


def _from_saved_model(path: str, pixels: keras.KerasTensor) -> keras.Model:
    try:
        directory = path
        if "://" in path:
            # Not at the top: an old version of it, which plain pip installs, cannot be imported.
            import tensorflow_hub

            directory = tensorflow_hub.resolve(path)
        return keras.Model(pixels, keras.layers.TFSMLayer(directory, call_endpoint="serving_default")(pixels))
    except Exception as error:
        # Whatever the network, the hub and the loader raise.
        raise TrainingError(
            f"{path}: no TF-Hub model can be loaded from there: {first_line(error)}; set trainer.weights to the "
            "directory of a downloaded one, to a .weights.h5 or .keras file, or to none"
        ) from error
