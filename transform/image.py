"""Preprocessing of photos: the only one there is, for training and for serving."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import tensorflow as tf

from serving.signatures.common import LABEL
from serving.signatures.image import ERROR, FILE_BEGINNINGS, IMAGE, begins_with, map_each
from transform.errors import PreprocessingError
from transform.image_decoding import (
    checked_image,
    completed_jpeg,
    decode_image,
    exif_orientations,
    is_transposed,
    upright,
)
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
    """float32 [batch, height, width, 3] and string [batch]: what the model sees, or zeros and a reason.

    Photos are turned as EXIF says after they are resized, which makes the same pixels of far fewer.
    """
    pixels, reasons = _usable_pixels_function(options.model_dump_json())(images)
    return pixels, reasons


# Transform and a trainer need it in eight graphs, and tracing it takes a second.
@lru_cache(maxsize=4)
def _usable_pixels_function(options_json: str) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    options = ImageOptions.model_validate_json(options_json)
    signature = [tf.TensorSpec([None], tf.string)]
    return tf.function(lambda images: _all_usable_pixels(images, options), input_signature=signature, autograph=False)


def _all_usable_pixels(images: tf.Tensor, options: ImageOptions) -> tuple[tf.Tensor, tf.Tensor]:
    orientations = exif_orientations(images)
    # Where each photo is mapped, an operation takes time even if it does not run, and most are there for rare files.
    pixels, reasons = _usable_pixels(images, orientations, options, _COMMON_FORMATS)
    rare = [begins_with(images, FILE_BEGINNINGS[name]) for name in FILE_BEGINNINGS if name not in _COMMON_FORMATS]
    cut = tf.logical_and(tf.equal(reasons, DAMAGED), begins_with(images, FILE_BEGINNINGS["JPEG"]))
    again = tf.reduce_any([*rare, cut], axis=0)
    pixels, reasons = tf.cond(
        tf.reduce_any(again),
        lambda: _of_rare_files(images, again, orientations, options, (pixels, reasons)),
        lambda: (pixels, reasons),
    )
    turned = tf.cond(tf.reduce_any(orientations > 1), lambda: upright(pixels, orientations), lambda: pixels)
    return turned, reasons


def _of_rare_files(
    images: tf.Tensor,
    again: tf.Tensor,
    orientations: tf.Tensor,
    options: ImageOptions,
    found: tuple[tf.Tensor, tf.Tensor],
) -> tuple[tf.Tensor, tf.Tensor]:
    """What was found, and `again` that of other formats, and of JPEGs that lack nothing but their end marker."""

    def completed(image: tf.Tensor) -> tf.Tensor:
        checked, reason = checked_image(image, options.max_pixels, ("JPEG",))
        return tf.cond(tf.equal(reason, ""), lambda: completed_jpeg(checked), lambda: image)

    pixels, reasons = _usable_pixels(tf.where(again, images, ""), orientations, options, FILE_BEGINNINGS, completed)
    return tf.where(again[:, None, None, None], pixels, found[0]), tf.where(again, reasons, found[1])


def _usable_pixels(
    images: tf.Tensor,
    orientations: tf.Tensor,
    options: ImageOptions,
    formats: Collection[str],
    repaired: Callable[[tf.Tensor], tf.Tensor] = lambda image: image,
) -> tuple[tf.Tensor, tf.Tensor]:
    """As `usable_pixels`, each photo as it is stored, see `upright`; what is decoded is what `repaired` makes of it."""
    shape = [options.height, options.width, 3]
    # Twice as many pixels as are needed are left for the resizing, which is more exact than the decoder.
    least = 2 * max(options.height, options.width) if options.antialias else None

    def prepare(image: tf.Tensor, orientation: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels, reason = decode_image(repaired(image), options.max_pixels, formats, least)
        resized = tf.cond(
            tf.equal(reason, ""),
            lambda: scale(_resized(pixels, orientation, options), options.scaling),
            lambda: tf.zeros(shape),
        )
        return resized, reason

    (pixels, reasons), decoded = map_each(
        prepare, (images, orientations), (tf.TensorSpec(shape, tf.float32), tf.TensorSpec([], tf.string))
    )
    return pixels, tf.where(decoded, reasons, DAMAGED)


def _resized(pixels: tf.Tensor, orientation: tf.Tensor, options: ImageOptions) -> tf.Tensor:
    """float32 [height, width, 3]: in the order in which the photo is stored, see `upright`."""
    height, width = options.height, options.width
    if height == width:
        return resize(pixels, [height, width], options)
    size = tf.where(is_transposed(orientation), [width, height], [height, width])
    return tf.reshape(resize(pixels, size, options), [height, width, 3])


def resize(pixels: tf.Tensor, size: Sequence[int] | tf.Tensor, options: ImageOptions) -> tf.Tensor:
    """float32 [height, width, 3]: bilinear; where it shrinks, by the mean of what becomes one pixel if `antialias`.

    Args:
        pixels: uint8 [any height, any width, 3].
        size: height and width.
        options: how.
    """
    if options.align_corners:
        corners = tf.compat.v1.image.resize(pixels[None], size, align_corners=True)
        return tf.cast(corners[0], tf.float32)
    if not options.antialias:
        return tf.image.resize(pixels, size)
    given = tf.shape(pixels)[:2]
    # The operation that can do both takes longer, and where nothing shrinks both make the same.
    return tf.cond(
        tf.reduce_any(given > size),
        lambda: tf.image.resize(pixels, size, antialias=True),
        lambda: tf.image.resize(pixels, size),
    )


def scale(pixels: tf.Tensor, scaling: Scaling) -> tf.Tensor:
    """float32 of the same shape: colour values of [0, 255] in the range that `scaling` names."""
    if scaling == "minus_one_to_one":
        return pixels / 127.5 - 1.0
    return pixels / 255.0 if scaling == "zero_to_one" else pixels


def unscaled(pixels: tf.Tensor, scaling: Scaling) -> tf.Tensor:
    """float32 of the same shape: what `scale` made these pixels of, colour values of [0, 255]."""
    if scaling == "minus_one_to_one":
        return (pixels + 1.0) * 127.5
    return pixels * 255.0 if scaling == "zero_to_one" else pixels
