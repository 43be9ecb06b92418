"""Whole numbers out of a file's header."""

from __future__ import annotations

import tensorflow as tf


def header_number(header: tf.Tensor, offset: int, dtype: tf.DType, little_endian: bool = True) -> tf.Tensor:
    """int64 scalar: the number of type `dtype` at `offset` bytes of `header`, a string scalar that is long enough."""
    encoded = tf.strings.substr(header, offset, dtype.size)
    return tf.cast(tf.io.decode_raw(encoded, dtype, little_endian=little_endian)[0], tf.int64)
