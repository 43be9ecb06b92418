"""Preprocessing of photos: the only one there is, for training and for serving."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import tensorflow as tf

from serving.signatures.common import LABEL
from serving.signatures.image import ERROR, FILE_BEGINNINGS, IMAGE, begins_with, map_each
from transform.errors import PreprocessingError
from transform.image_decoding import decode_image
from transform.labels import dense_column, label_ids
from transform.options import ImageOptions, Scaling

DAMAGED = "image is damaged"

_COMMON_FORMATS = ("JPEG", "PNG")


def preprocessing_fn(
    inputs: Mapping[str, tf.Tensor | tf.SparseTensor], custom_config: Mapping[str, Any]
) -> dict[str, tf.Tensor]:
    """Turn encoded photos into the model's features; no photo makes it raise.

    Args:
        inputs: the raw features of the schema, each [batch] or sparse [batch, n]; `image` is the encoded file.
        custom_config: `preprocessing`, the JSON of ImageOptions.

    Returns:
        `image`: float32 [batch, height, width, 3]; zeros for a photo that cannot be used.
        `error`: string [batch], "" or why the photo cannot be used.
        `label`: int64 [batch], -1 for a missing or unlisted label.

    Raises:
        PreprocessingError: the schema has no feature `image` of bytes.
    """
    options = ImageOptions.model_validate_json(custom_config["preprocessing"])
    if IMAGE not in inputs or inputs[IMAGE].dtype != tf.string:
        raise PreprocessingError(
            f"the examples need a feature {IMAGE!r} with the bytes of each photo; "
            f"their features are {', '.join(sorted(inputs))}"
        )
    pixels, error = usable_pixels(dense_column(inputs[IMAGE]), options)
    outputs = {IMAGE: pixels, ERROR: error}
    if options.label.column in inputs:
        outputs[LABEL] = label_ids(inputs[options.label.column], options.label)
    return outputs


def usable_pixels(images: tf.Tensor, options: ImageOptions) -> tuple[tf.Tensor, tf.Tensor]:
    """float32 [batch, height, width, 3] and string [batch]: what the model sees, or zeros and a reason."""
    rare = [begins_with(images, FILE_BEGINNINGS[name]) for name in FILE_BEGINNINGS if name not in _COMMON_FORMATS]
    # Where each photo is mapped, an operation takes time even if it does not run, and most are there for rare formats.
    return tf.cond(
        tf.reduce_any(rare),
        lambda: _usable_pixels(images, options, FILE_BEGINNINGS),
        lambda: _usable_pixels(images, options, _COMMON_FORMATS),
    )


def _usable_pixels(images: tf.Tensor, options: ImageOptions, formats: Collection[str]) -> tuple[tf.Tensor, tf.Tensor]:
    shape = [options.height, options.width, 3]

    def prepare(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels, reason = decode_image(image, options.max_pixels, formats)
        resized = tf.cond(
            tf.equal(reason, ""),
            lambda: scale(tf.image.resize(pixels, shape[:2]), options.scaling),
            lambda: tf.zeros(shape),
        )
        return resized, reason

    (pixels, reasons), decoded = map_each(
        prepare, images, (tf.TensorSpec(shape, tf.float32), tf.TensorSpec([], tf.string))
    )
    return pixels, tf.where(decoded, reasons, DAMAGED)


def scale(pixels: tf.Tensor, scaling: Scaling) -> tf.Tensor:
    """float32 of the same shape: colour values of [0, 255] in the range that `scaling` names."""
    if scaling == "minus_one_to_one":
        return pixels / 127.5 - 1.0
    return pixels / 255.0 if scaling == "zero_to_one" else pixels
