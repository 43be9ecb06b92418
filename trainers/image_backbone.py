"""A model of keras.applications without its head, and the weights to start from."""

from __future__ import annotations

import keras

from trainers.backbones import BLUE_GREEN_RED, STANDARDISED
from trainers.training_error import TrainingError
from transform.image_options import ImageOptions

IMAGENET, NO_WEIGHTS = "imagenet", "none"
# Of ImageNet's photos: in the order blue, green, red, from 0 to 255; and in the order red, green, blue, from 0 to 1.
_MEAN_BLUE_GREEN_RED = (103.939, 116.779, 123.68)
_MEAN_RED_GREEN_BLUE = (0.485, 0.456, 0.406)
_DEVIATION_RED_GREEN_BLUE = (0.229, 0.224, 0.225)


def image_backbone(name: str, weights: str, preprocessing: ImageOptions) -> keras.Model:
    """A Keras model from pixels as `preprocessing` makes them to the features of the last block.

    Args:
        name: one of trainers.backbones.BACKBONES.
        weights: `imagenet`, `none`, or the path of a .weights.h5 file of the backbone or a .keras file of a model.
        preprocessing: size and scaling of the pixels.

    Raises:
        TrainingError: the weights cannot be had, or do not fit.
    """
    shape = (preprocessing.height, preprocessing.width, 3)
    if weights == IMAGENET:
        backbone = _with_imagenet_weights(name, shape)
    else:
        backbone = _construct(name, shape)
        if weights != NO_WEIGHTS:
            _load(backbone, weights)
    if preprocessing.scaling != "raw" or name not in (*BLUE_GREEN_RED, *STANDARDISED):
        return backbone
    pixels = keras.Input(shape, name="pixels")
    return keras.Model(pixels, backbone(_as_trained_with(name, pixels)))


def _construct(name: str, shape: tuple[int, int, int], weights: str | None = None) -> keras.Model:
    try:
        return getattr(keras.applications, name)(include_top=False, weights=weights, input_shape=shape)
    except ValueError as error:
        raise TrainingError(
            f"{name} cannot take photos of {shape[0]}x{shape[1]} pixels: {error}; give other preprocessing.height and "
            "preprocessing.width"
        ) from error


def _with_imagenet_weights(name: str, shape: tuple[int, int, int]) -> keras.Model:
    try:
        return _construct(name, shape, IMAGENET)
    except Exception as error:
        # Keras raises a bare Exception where a download fails.
        if isinstance(error, TrainingError) or "URL fetch failure" not in str(error):
            raise
        raise TrainingError(
            f"the ImageNet weights of {name} cannot be downloaded ({error}); set trainer.weights to the path of a "
            ".weights.h5 or .keras file, to a TF-Hub handle or directory, or to none"
        ) from error
