"""Pixels as the models of keras.applications were trained on them."""

from __future__ import annotations

import keras

from trainers.backbones import BLUE_GREEN_RED, STANDARDISED

# Of ImageNet's photos: in the order blue, green, red, from 0 to 255; and in the order red, green, blue, from 0 to 1.
_MEAN_BLUE_GREEN_RED = (103.939, 116.779, 123.68)
_MEAN_RED_GREEN_BLUE = (0.485, 0.456, 0.406)
_DEVIATION_RED_GREEN_BLUE = (0.229, 0.224, 0.225)


def pixels_as_trained(name: str, pixels: keras.KerasTensor) -> keras.KerasTensor:
    """From pixels of 0 to 255 to what the model of this name takes; most do it themselves, for some it is done here."""
    if name in BLUE_GREEN_RED:
        centred = keras.layers.Normalization(mean=_MEAN_BLUE_GREEN_RED, variance=[1.0] * 3)
        return centred(keras.ops.flip(pixels, axis=-1))
    if name in STANDARDISED:
        mean = [255 * value for value in _MEAN_RED_GREEN_BLUE]
        variance = [(255 * value) ** 2 for value in _DEVIATION_RED_GREEN_BLUE]
        return keras.layers.Normalization(mean=mean, variance=variance)(pixels)
    return pixels
