"""The first frame of a GIF file, without reading the others."""

from __future__ import annotations

import tensorflow as tf

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
