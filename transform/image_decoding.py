"""Decoding of images in the graph: JPEG, PNG, GIF and BMP, with the reason where one cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Collection

import tensorflow as tf

from serving.signatures.image import FILE_BEGINNINGS, begins_with


def header_number(header: tf.Tensor, offset: int, dtype: tf.DType, little_endian: bool = True) -> tf.Tensor:
    """int64 scalar: the number of type `dtype` at `offset` bytes of `header`, a string scalar that is long enough."""
    encoded = tf.strings.substr(header, offset, dtype.size)
    return tf.cast(tf.io.decode_raw(encoded, dtype, little_endian=little_endian)[0], tf.int64)


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


# Blocks are at most 255 bytes long, so a frame of 12 MB is found; a file of countless empty blocks does not hold
# a server up.
MAXIMUM_BLOCKS = 50_000

_HEADER_SIZE = 13
_EXTENSION, _FRAME = 0x21, 0x2C
# Where the walk through the file stands: between blocks, in the data of an extension, in the data of the frame, behind.
_BETWEEN, _IN_EXTENSION, _IN_FRAME, _DONE = range(4)


def first_gif_frame(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The file cut off behind its first frame: string scalar; and the frame's height and width, int64 scalars.

    TensorFlow decodes every frame of an animation even when it is asked for the first only, whatever memory their
    declared sizes take. Layout: https://www.w3.org/Graphics/GIF/spec-gif89a.txt, sections 17 to 27.

    Raises:
        tf.errors.OpError: the file is damaged, or ends before the frame does.
    """
    data = tf.io.decode_raw(image, tf.uint8)

    def byte(position: tf.Tensor) -> tf.Tensor:
        return tf.cast(data[position], tf.int32)

    def short(position: tf.Tensor) -> tf.Tensor:
        return byte(position) + 256 * byte(position + 1)

    def begin_block(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        kind = byte(position)
        known = tf.debugging.assert_equal(tf.logical_or(tf.equal(kind, _EXTENSION), tf.equal(kind, _FRAME)), True)
        with tf.control_dependencies([known]):
            return tf.cond(
                tf.equal(kind, _FRAME),
                lambda: (position + 11 + _colour_table_size(byte(position + 9)), tf.constant(_IN_FRAME), position),
                lambda: (position + 2, tf.constant(_IN_EXTENSION), tf.constant(0)),
            )

    def step(position: tf.Tensor, state: tf.Tensor, frame: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        def next_data_block() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            length = byte(position)
            ended = tf.where(tf.equal(state, _IN_FRAME), _DONE, _BETWEEN)
            return position + 1 + length, tf.where(tf.equal(length, 0), ended, state), frame

        return tf.cond(tf.equal(state, _BETWEEN), lambda: begin_block(position), next_data_block)

    end, state, frame = tf.while_loop(
        lambda position, state, frame: tf.not_equal(state, _DONE),
        step,
        (_HEADER_SIZE + _colour_table_size(byte(tf.constant(10))), tf.constant(_BETWEEN), tf.constant(0)),
        parallel_iterations=1,
        maximum_iterations=MAXIMUM_BLOCKS,
    )
    with tf.control_dependencies([tf.debugging.assert_equal(state, _DONE)]):
        only_frame = tf.strings.join([tf.strings.substr(image, 0, end), ";"])
    return only_frame, tf.cast(short(frame + 7), tf.int64), tf.cast(short(frame + 5), tf.int64)


def _colour_table_size(flags: tf.Tensor) -> tf.Tensor:
    """Bytes, int32: the flags say whether there is a table, and the logarithm of its length."""
    size = 3 * tf.bitwise.left_shift(2, tf.bitwise.bitwise_and(flags, 7))
    return tf.where(flags >= 0x80, size, 0)


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


# Each scan of a progressive JPEG goes through all its pixels, and takes hardly a byte where it changes none. Encoders
# write about ten; small images may have more of them than the largest.
MAXIMUM_SCANS = 64
_SCANS_OF_THE_LARGEST = 16
_START_OF_SCAN = b"\xff\xda"  # which the data of a scan cannot hold


def _check_jpeg(image: tf.Tensor, max_pixels: int) -> Checked:
    shape = tf.cast(tf.io.extract_jpeg_shape(image), tf.int64)
    too_large = _too_large(shape[0], shape[1], max_pixels)
    pixels = tf.maximum(tf.where(tf.equal(too_large, ""), shape[0] * shape[1], 1), 1)
    allowed = tf.clip_by_value(_SCANS_OF_THE_LARGEST * max_pixels // pixels, _SCANS_OF_THE_LARGEST, MAXIMUM_SCANS)
    scans = tf.cast(tf.size(tf.strings.split(image, _START_OF_SCAN)) - 1, tf.int64)
    parts = [
        "image has ",
        tf.strings.as_string(scans),
        " scans, at most ",
        tf.strings.as_string(allowed),
        " are allowed",
    ]
    too_many = tf.where(scans > allowed, tf.strings.join(parts), "")
    return image, tf.where(tf.equal(too_large, ""), too_many, too_large)


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
