"""Photos changed at random, for training."""

from __future__ import annotations

import tensorflow as tf

from trainers.augmentation_options import AugmentationOptions
from transform.image_options import Scaling

_RANGES: dict[Scaling, tuple[float, float]] = {
    "minus_one_to_one": (-1.0, 1.0),
    "zero_to_one": (0.0, 1.0),
    "raw": (0.0, 255.0),
}
# How bright red, green and blue are, ITU-R BT.601.
_LUMA = (0.299, 0.587, 0.114)


def augmented(pixels: tf.Tensor, options: AugmentationOptions, scaling: Scaling, seed: tf.Tensor) -> tf.Tensor:
    """The photos, each changed at random: the same shape and range.

    Args:
        pixels: float32 [batch, height, width, 3], in the range that `scaling` names.
        options: which changes.
        scaling: the range.
        seed: int64 [2]; the same seed makes the same changes.
    """
    count = tf.shape(pixels)[0]
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 6))
    if options.flip:
        flipped = tf.random.stateless_uniform([count, 1, 1, 1], seeds[0]) < 0.5
        pixels = tf.where(flipped, tf.reverse(pixels, [2]), pixels)
    if options.crop:
        size = 1 - options.crop * tf.random.stateless_uniform([count, 2], seeds[1])
        corner = (1 - size) * tf.random.stateless_uniform([count, 2], seeds[2])
        boxes = tf.concat([corner, corner + size], axis=1)
        cropped = tf.image.crop_and_resize(pixels, boxes, tf.range(count), tf.shape(pixels)[1:3])
        pixels = tf.ensure_shape(cropped, pixels.shape)
    if options.colour:
        pixels = _recoloured(pixels, options.colour, _RANGES[scaling], seeds[3:])
    return pixels


def _recoloured(pixels: tf.Tensor, share: float, limits: tuple[float, float], seeds: list[tf.Tensor]) -> tf.Tensor:
    lowest, highest = limits
    brightness, contrast, saturation = (
        tf.random.stateless_uniform([tf.shape(pixels)[0], 1, 1, 1], seed, 1 - share, 1 + share) for seed in seeds
    )
    pixels = lowest + (pixels - lowest) * brightness
    mean = tf.reduce_mean(pixels, axis=[1, 2, 3], keepdims=True)
    pixels = mean + (pixels - mean) * contrast
    grey = tf.reduce_sum(pixels * tf.constant(_LUMA), axis=3, keepdims=True)
    return tf.clip_by_value(grey + (pixels - grey) * saturation, lowest, highest)
