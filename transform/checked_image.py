"""Whether a photo may be decoded, by its header."""

from __future__ import annotations

from collections.abc import Callable, Collection

import tensorflow as tf

from serving.image_files import FILE_BEGINNINGS, begins_with
from transform.decode_bmp import HEADER_SIZE, is_supported_bmp
from transform.first_gif_frame import first_gif_frame
from transform.header_number import header_number

EMPTY = "image is empty"
UNKNOWN_FORMAT = "not a JPEG, PNG, GIF or BMP image"
UNSUPPORTED_BMP = "image is a BMP file of a kind that cannot be read; 8, 24 or 32 bits per pixel, uncompressed, can"

Checked = tuple[tf.Tensor, tf.Tensor]


def checked_image(image: tf.Tensor, max_pixels: int, formats: Collection[str] = FILE_BEGINNINGS) -> Checked:
    """What to decode, string scalar, and a reason, string scalar: "", or why it must not be decoded.

    Nothing is decoded here, so neither time nor memory grows with what the header declares.

    Args:
        image: string scalar, the encoded file. Of a GIF, the first frame only is to be decoded.
        max_pixels: what height times width may be.
        formats: of FILE_BEGINNINGS, those that the file may have; a file of another is given an unknown one's reason.

    Raises:
        tf.errors.OpError: the header is damaged.
    """
    # The zeros make a header long enough for every field that is read of it.
    header = tf.strings.join([tf.strings.substr(image, 0, HEADER_SIZE), tf.constant(b"\0" * HEADER_SIZE)])
    checks: dict[str, Callable[[], Checked]] = {
        "JPEG": lambda: _check_jpeg(image, max_pixels),
        "PNG": lambda: _check_png(image, header, max_pixels),
        "GIF": lambda: _check_gif(image, max_pixels),
        "BMP": lambda: _check_bmp(image, header, max_pixels),
    }
    matches = [begins_with(image, FILE_BEGINNINGS[name]) for name in formats]
    first = tf.argmax(tf.cast(tf.stack([*matches, True]), tf.int32), output_type=tf.int32)
    return tf.switch_case(first, [*(checks[name] for name in formats), lambda: _unknown(image)])


def _unknown(image: tf.Tensor) -> Checked:
    return image, tf.where(tf.equal(image, ""), EMPTY, UNKNOWN_FORMAT)


def _check_jpeg(image: tf.Tensor, max_pixels: int) -> Checked:
    shape = tf.cast(tf.io.extract_jpeg_shape(image), tf.int64)
    return image, _too_large(shape[0], shape[1], max_pixels)


def _check_png(image: tf.Tensor, header: tf.Tensor, max_pixels: int) -> Checked:
    # The size stands in the first chunk, and the decoder takes no other chunk for the first.
    width, height = (header_number(header, offset, tf.int32, little_endian=False) for offset in (16, 20))
    return image, _too_large(height, width, max_pixels)


def _check_gif(image: tf.Tensor, max_pixels: int) -> Checked:
    frame, height, width = first_gif_frame(image)
    return frame, _too_large(height, width, max_pixels)


def _check_bmp(image: tf.Tensor, header: tf.Tensor, max_pixels: int) -> Checked:
    # A negative height says that the rows stand from top to bottom.
    width, height = header_number(header, 18, tf.int32), tf.abs(header_number(header, 22, tf.int32))
    return image, tf.where(is_supported_bmp(header), _too_large(height, width, max_pixels), UNSUPPORTED_BMP)


def _too_large(height: tf.Tensor, width: tf.Tensor, max_pixels: int) -> tf.Tensor:
    size = tf.strings.join([tf.strings.as_string(width), "x", tf.strings.as_string(height)])
    # By division: the product of two large numbers would come out small.
    fits = height <= max_pixels // tf.maximum(width, 1)
    return tf.where(fits, "", tf.strings.join(["image is ", size, f", at most {max_pixels} pixels are allowed"]))
