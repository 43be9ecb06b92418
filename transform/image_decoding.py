"""Decoding of images in the graph: JPEG, PNG, GIF and BMP, how they are turned, and why one cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

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
    # tf.strings.split would add eighty nodes to make a ragged tensor of it.
    pieces = tf.raw_ops.StringSplitV2(input=image[None], sep=_START_OF_SCAN, maxsplit=-1).values
    scans = tf.size(pieces, tf.int64) - 1
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
    image: tf.Tensor, max_pixels: int, formats: Collection[str] = FILE_BEGINNINGS, least: int | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pixels, uint8 [height, width, 3], and a reason, string scalar: "" or why the pixels are [0, 0, 3].

    As tf.io.decode_image with three channels, and BMP files of each kind: JPEG (grey and CMYK included), PNG (grey,
    palette, transparency, 16 bits), the first frame of a GIF. Pixels are as they are stored: `upright` turns them as
    EXIF says. The size that the header declares is checked before anything is decoded.

    Args:
        image: string scalar, the encoded file.
        max_pixels: what height times width may be.
        formats: of FILE_BEGINNINGS, those that the file may have, as of `checked_image`.
        least: a JPEG may be decoded smaller than it is, as long as height and width are that many; None for not.

    Raises:
        tf.errors.OpError: the file is damaged.
    """
    file, reason = checked_image(image, max_pixels, formats)

    def decode() -> tf.Tensor:
        others = _decode if "BMP" in formats else _decode_but_bmp
        if least is None:
            return others(file)
        is_jpeg = begins_with(file, FILE_BEGINNINGS["JPEG"])
        scaled = tf.cond(is_jpeg, lambda: _jpeg_scaling(file, least), lambda: 0)
        return tf.switch_case(scaled, [lambda: others(file), *_scaled_decoders(file)])

    pixels = tf.cond(tf.equal(reason, ""), decode, lambda: tf.zeros([0, 0, 3], tf.uint8))
    return tf.ensure_shape(pixels, [None, None, 3]), reason


def _decode(file: tf.Tensor) -> tf.Tensor:
    is_bmp = begins_with(file, FILE_BEGINNINGS["BMP"])
    return tf.cond(is_bmp, lambda: decode_bmp(file), lambda: _decode_but_bmp(file))


def _decode_but_bmp(file: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_image(file, channels=3, expand_animations=False)


# By how much the decoder shrinks a JPEG as it decodes it, each 8x8 block to 4x4, 2x2 or one pixel: the block's means,
# and a fraction of the time and memory.
_JPEG_SCALES = (2, 4, 8)


def _jpeg_scaling(file: tf.Tensor, least: int) -> tf.Tensor:
    """int32 scalar: by which of _JPEG_SCALES, counted from 1, a JPEG stays `least` pixels high and wide; 0 for none."""
    shorter = tf.reduce_min(tf.io.extract_jpeg_shape(file)[:2])
    return tf.reduce_sum(tf.cast(shorter >= [scale * least for scale in _JPEG_SCALES], tf.int32))


def _scaled_decoders(file: tf.Tensor) -> list[Callable[[], tf.Tensor]]:
    return [partial(tf.io.decode_jpeg, file, channels=3, ratio=scale) for scale in _JPEG_SCALES]


END_OF_JPEG = b"\xff\xd9"
# Where pixels are missing, the decoder takes these for them, and makes other pixels of them than of the zeros that it
# takes before an end: their first bit is one.
_NO_PIXELS = bytes(range(0xB1, 0xF1))


def completed_jpeg(image: tf.Tensor) -> tf.Tensor:
    """string scalar: a JPEG that is cut off just before its end marker, with one; all of its pixels are there.

    The decoder needs the marker, and given one, fills up whatever is missing before it. Nothing is missing where what
    stands before the marker makes no difference.

    Args:
        image: a JPEG that was checked.

    Raises:
        tf.errors.OpError: the file is damaged otherwise, or pixels are missing.
    """
    # Half a marker at the end is the rest of it: among pixels, a byte of zeros follows.
    length = tf.strings.length(image)
    half = tf.equal(tf.strings.substr(image, length - 1, 1), END_OF_JPEG[:1])
    image = tf.strings.substr(image, 0, length - tf.cast(half, tf.int32))
    completed = tf.strings.join([image, END_OF_JPEG])
    pixels, others = (
        tf.io.decode_jpeg(file, channels=3) for file in (completed, tf.strings.join([image, _NO_PIXELS + END_OF_JPEG]))
    )
    with tf.control_dependencies([tf.debugging.assert_equal(pixels, others)]):
        return tf.identity(completed)


# JPEG: each segment begins with its marker and length; PNG: each chunk, with its length and kind.
_EXIF_BEGINNING = b"Exif\0\0"
# What a walk reads of a segment or chunk: marker or length and kind, length, and the beginning of what is in it.
_STEP_SIZE = 10
# Cameras write EXIF into the first segments; behind a hundred others it is no camera's.
MAXIMUM_STEPS = 100
MAXIMUM_ENTRIES = 256
_ENTRY_SIZE = 12
_ORIENTATION, _SHORT = 0x0112, 3


def exif_orientations(images: tf.Tensor) -> tf.Tensor:
    """int32 [batch]: how the pixels of each photo are turned, 1 to 8; 1 is upright, also where EXIF data are damaged.

    The orientation is a SHORT in the first directory of the EXIF data: in a JPEG's segment APP1 before its pixels, or
    in a PNG's chunk eXIf. Source: CIPA DC-008 (Exif 2.32), 4.5.4 and 4.6.4; PNG 1.5, Extensions, 3.7.

    Args:
        images: string [batch], the files, of any content.
    """
    jpeg, png = (begins_with(images, FILE_BEGINNINGS[name]) for name in ("JPEG", "PNG"))
    # One expression over the files' heads tells that there is nothing to look for, as of most photos on the web.
    heads = tf.strings.substr(images, 0, _HEAD)
    noted = tf.strings.regex_full_match(heads, r"(?s)\C*(Exif\x00\x00|eXIf)\C*")
    looked_at = tf.logical_and(noted, tf.logical_or(jpeg, png))
    nothing = tf.ones_like(images, tf.int32)
    return tf.cond(tf.reduce_any(looked_at), lambda: _noted_orientations(images, looked_at, png), lambda: nothing)


_HEAD = 1 << 17


def _noted_orientations(images: tf.Tensor, looked_at: tf.Tensor, png: tf.Tensor) -> tf.Tensor:
    begin, size = _exif_places(images, looked_at, png)
    exif = tf.strings.substr(images, begin, size)
    header = _bytes(exif, tf.zeros_like(begin), 8)
    little_endian = tf.equal(header[:, 0], ord("I"))
    known = tf.logical_or(
        tf.reduce_all(tf.equal(header[:, :4], list(b"II*\0")), axis=1),
        tf.reduce_all(tf.equal(header[:, :4], list(b"MM\0*")), axis=1),
    )
    directory = _number(header[:, 4:8], little_endian)
    count = _number(_bytes(exif, directory, 2), little_endian)
    count = tf.where(tf.logical_and(known, directory >= 8), tf.minimum(count, MAXIMUM_ENTRIES), 0)
    most = tf.reduce_max(count)
    # Of an entry that the data do not reach, the bytes are zeros, which is no orientation.
    entries = tf.reshape(_bytes(exif, directory + 2, most * _ENTRY_SIZE), [tf.size(begin), most, _ENTRY_SIZE])
    numbers = tf.stack(
        [_number(entries[:, :, begin:end], little_endian[:, None]) for begin, end in ((0, 2), (2, 4), (4, 8), (8, 10))],
        axis=-1,
    )
    found = tf.reduce_all(tf.equal(numbers[:, :, :3], [_ORIENTATION, _SHORT, 1]), axis=-1)
    found = tf.logical_and(found, tf.range(most)[None] < count[:, None])
    # The first of several: zeros for all entries behind it.
    first = tf.logical_and(found, tf.equal(tf.cumsum(tf.cast(found, tf.int32), axis=1), 1))
    value = tf.reduce_sum(tf.where(first, numbers[:, :, 3], 0), axis=1)
    return tf.where(tf.logical_and(value >= 1, value <= 8), value, 1)


def _exif_places(images: tf.Tensor, looked_at: tf.Tensor, png: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """int32 [batch], twice: where the EXIF data of each photo begin, and how long they are; 0 where there are none."""

    def step(
        position: tf.Tensor, walking: tf.Tensor, begin: tf.Tensor, size: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        head = _bytes(images, position, _STEP_SIZE)
        marker, big_endian = head[:, 1], tf.zeros_like(png)
        jpeg_length, png_length = _number(head[:, 2:4], big_endian), _number(head[:, :4], big_endian)
        filled = tf.logical_and(tf.equal(head[:, 0], 0xFF), tf.equal(marker, 0xFF))
        # Segments with a length: 0xD0 to 0xD9 have none, and behind 0xDA come pixels.
        in_jpeg = tf.logical_and(marker >= 0xC0, tf.logical_or(marker < 0xD0, marker > 0xDA))
        in_jpeg = tf.reduce_all([tf.equal(head[:, 0], 0xFF), in_jpeg, jpeg_length >= 2], axis=0)
        kind = head[:, 4:8]
        ends = tf.logical_or(_is(kind, b"IDAT"), _is(kind, b"IEND"))
        in_png = tf.reduce_all([png_length >= 0, png_length <= lengths, tf.logical_not(ends)], axis=0)
        exif_in_jpeg = tf.logical_and(tf.equal(marker, 0xE1), _is(head[:, 4:], _EXIF_BEGINNING))
        has_exif = tf.where(png, _is(kind, b"eXIf"), exif_in_jpeg)
        is_exif = tf.reduce_all([walking, tf.where(png, in_png, in_jpeg), has_exif], axis=0)
        begin = tf.where(is_exif, position + tf.where(png, 8, 10), begin)
        size = tf.where(is_exif, tf.maximum(tf.where(png, png_length, jpeg_length - 8), 0), size)
        onward = tf.where(png, png_length + 12, tf.where(filled, 1, jpeg_length + 2))
        goes_on = tf.logical_and(tf.where(png, in_png, tf.logical_or(filled, in_jpeg)), tf.logical_not(is_exif))
        walking = tf.reduce_all([walking, goes_on, position <= lengths - onward], axis=0)
        return tf.where(walking, position + onward, position), walking, begin, size

    lengths = tf.strings.length(images)
    zeros = tf.zeros_like(lengths)
    _, _, begin, size = tf.while_loop(
        lambda position, walking, begin, size: tf.reduce_any(walking),
        step,
        (tf.where(png, 8, 2) + zeros, looked_at, zeros, zeros),
        parallel_iterations=1,
        maximum_iterations=MAXIMUM_STEPS,
    )
    return tf.minimum(begin, lengths), size


def _bytes(texts: tf.Tensor, position: tf.Tensor, size: int | tf.Tensor) -> tf.Tensor:
    """int32 [batch, size]: what stands at `position` of each of the strings; zeros where that is behind the end."""
    inside = tf.clip_by_value(position, 0, tf.strings.length(texts))
    parts = tf.strings.substr(texts, inside, tf.zeros_like(inside) + size)
    # The decoder takes no length of 0.
    decoded = tf.io.decode_raw(parts, tf.uint8, fixed_length=tf.maximum(size, 1))
    return tf.cast(decoded[:, :size], tf.int32)


def _number(values: tf.Tensor, little_endian: tf.Tensor) -> tf.Tensor:
    """int32 [...]: the number that bytes, int32 [..., 2 or 4], are; of four bytes, from 2 ** 31 on a negative one."""
    size = values.shape[-1]
    powers = [1, 1 << 8, 1 << 16, 1 << 24][:size]
    ascending, descending = (
        tf.reduce_sum(values * tf.constant(order, tf.int32), axis=-1) for order in (powers, powers[::-1])
    )
    return tf.where(little_endian, ascending, descending)


def _is(values: tf.Tensor, beginning: bytes) -> tf.Tensor:
    return tf.reduce_all(tf.equal(values[:, : len(beginning)], list(beginning)), axis=1)


def is_transposed(orientations: tf.Tensor) -> tf.Tensor:
    """bool of the same shape: whether height and width are exchanged as the photo is turned upright."""
    return orientations >= 5


def upright(pixels: tf.Tensor, orientations: tf.Tensor) -> tf.Tensor:
    """[batch, height, width, channels]: the photos turned upright.

    Args:
        pixels: [batch, height, width, channels], each photo as it is stored; the pixels of a transposed photo, which is
            `width` high and `height` wide, stand there in their order.
        orientations: int32 [batch], 1 to 8 as EXIF counts.
    """
    _, height, width, channels = pixels.shape

    def mirrored(size: int, *which: int) -> tf.Tensor:
        """[batch, size]: where each row or column comes from."""
        places, chosen = tf.range(size), tf.reduce_any(tf.equal(orientations[:, None], which), axis=1)
        return tf.where(chosen[:, None], places[::-1], places)

    rows, columns = mirrored(height, 3, 4, 7, 8)[:, :, None], mirrored(width, 2, 3, 6, 7)[:, None, :]
    transposed = is_transposed(orientations)[:, None, None]
    sources = tf.where(transposed, columns * height + rows, rows * width + columns)
    flat = tf.reshape(pixels, [-1, height * width, channels])
    return tf.ensure_shape(tf.gather(flat, sources, batch_dims=1), pixels.shape)
