"""One photo's pixels, or why there are none."""

from __future__ import annotations

from collections.abc import Collection

import tensorflow as tf

from serving.image_files import FILE_BEGINNINGS, begins_with
from transform.checked_image import checked_image
from transform.decode_bmp import decode_bmp


def decode_image(
    image: tf.Tensor, max_pixels: int, formats: Collection[str] = FILE_BEGINNINGS
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pixels, uint8 [height, width, 3], and a reason, string scalar: "" or why the pixels are [0, 0, 3].

    As tf.io.decode_image with three channels, and BMP files of each kind: JPEG (grey and CMYK included), PNG (grey,
    palette, transparency, 16 bits), the first frame of a GIF. The rotation that a camera notes in EXIF is not applied.
    The size that the header declares is checked before anything is decoded.

    Args:
        image: string scalar, the encoded file.
        max_pixels: what height times width may be.
        formats: of FILE_BEGINNINGS, those that the file may have, as of `checked_image`.

    Raises:
        tf.errors.OpError: the file is damaged.
    """
    file, reason = checked_image(image, max_pixels, formats)
    decode = _decode if "BMP" in formats else _decode_but_bmp
    pixels = tf.cond(tf.equal(reason, ""), lambda: decode(file), lambda: tf.zeros([0, 0, 3], tf.uint8))
    return tf.ensure_shape(pixels, [None, None, 3]), reason


def _decode(file: tf.Tensor) -> tf.Tensor:
    is_bmp = begins_with(file, FILE_BEGINNINGS["BMP"])
    return tf.cond(is_bmp, lambda: decode_bmp(file), lambda: _decode_but_bmp(file))


def _decode_but_bmp(file: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_image(file, channels=3, expand_animations=False)
