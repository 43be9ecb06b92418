"""Pixels of a BMP file, those with a palette included."""

from __future__ import annotations

import tensorflow as tf

from transform.header_number import header_number

HEADER_SIZE = 54
_FILE_HEADER_SIZE = 14


def is_supported_bmp(header: tf.Tensor) -> tf.Tensor:
    """bool scalar: 8, 24 or 32 bits per pixel, not compressed, which is what decode_bmp reads.

    Args:
        header: string scalar, the first HEADER_SIZE bytes.
    """
    description_size = header_number(header, 14, tf.int32)
    bits = header_number(header, 28, tf.uint16)
    compression = header_number(header, 30, tf.int32)
    # 3: no compression, and masks, which for 32 bits say what is usual anyway.
    plain = tf.logical_or(tf.equal(compression, 0), tf.logical_and(tf.equal(compression, 3), tf.equal(bits, 32)))
    known_bits = tf.reduce_any(tf.equal(bits, tf.constant([8, 24, 32], tf.int64)))
    return tf.reduce_all([description_size >= 40, known_bits, plain])


def decode_bmp(image: tf.Tensor) -> tf.Tensor:
    """uint8 [height, width, 3]: the colours; transparency is dropped.

    tf.io.decode_bmp knows no palette: it gives the number of a colour as if it were a grey.

    Raises:
        tf.errors.OpError: the file is damaged.
    """
    pixels = tf.io.decode_bmp(image)
    return tf.cond(
        tf.equal(tf.shape(pixels)[2], 1),
        lambda: tf.gather(_palette(image), tf.cast(pixels[:, :, 0], tf.int32)),
        lambda: pixels[:, :, :3],
    )


def _palette(image: tf.Tensor) -> tf.Tensor:
    """uint8 [colours, 3]: the table between the header and the pixels, blue, green, red, and a byte that is unused."""
    begin = _FILE_HEADER_SIZE + header_number(image, 14, tf.int32)
    end = header_number(image, 10, tf.int32)
    table = tf.io.decode_raw(tf.strings.substr(image, begin, (end - begin) // 4 * 4), tf.uint8)
    return tf.reshape(table, [-1, 4])[:, 2::-1]
