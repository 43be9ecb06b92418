"""One photo's pixels, or why there are none."""

from __future__ import annotations

import tensorflow as tf

from transform.checked_image import checked_image
from transform.decode_bmp import decode_bmp


def decode_image(image: tf.Tensor, max_pixels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Pixels, uint8 [height, width, 3], and a reason, string scalar: "" or why the pixels are [0, 0, 3].

    As tf.io.decode_image with three channels, and BMP files of each kind: JPEG (grey and CMYK included), PNG (grey,
    palette, transparency, 16 bits), the first frame of a GIF. The rotation that a camera notes in EXIF is not applied.
    The size that the header declares is checked before anything is decoded.

    Args:
        image: string scalar, the encoded file.
        max_pixels: what height times width may be.

    Raises:
        tf.errors.OpError: the file is damaged.
    """
    file, reason = checked_image(image, max_pixels)
    pixels = tf.cond(tf.equal(reason, ""), lambda: _decode(file), lambda: tf.zeros([0, 0, 3], tf.uint8))
    return tf.ensure_shape(pixels, [None, None, 3]), reason


def _decode(file: tf.Tensor) -> tf.Tensor:
    return tf.cond(
        tf.equal(tf.strings.substr(file, 0, 2), b"BM"),
        lambda: decode_bmp(file),
        lambda: tf.io.decode_image(file, channels=3, expand_animations=False),
    )
