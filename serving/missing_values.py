"""How a request says that a value is missing: one form per dtype, which plain JSON can carry."""

from __future__ import annotations

import tensorflow as tf

# JSON has no NaN, and TensorFlow Serving refuses null and omitted keys. The integer is one that every language's JSON
# writer prints exactly; the float lies far outside of measured data and inside of float32.
MISSING_STRING = ""
MISSING_INTEGER = -(2**31)
MISSING_FLOAT = -1e38


def missing_value(dtype: tf.DType) -> str | int | float:
    """The value that stands for a missing one: "" for strings, -2147483648 for integers, -1e38 for floats.

    Raises:
        TypeError: the dtype is none of string, integer and floating.
    """
    if dtype == tf.string:
        return MISSING_STRING
    if dtype.is_integer:
        return MISSING_INTEGER
    if dtype.is_floating:
        return MISSING_FLOAT
    raise TypeError(f"a column's dtype is string, an integer or a float, not {dtype.name}")


def is_missing(values: tf.Tensor) -> tf.Tensor:
    """Which values are missing: a bool tensor of the same shape.

    Floats that are NaN, infinite or of magnitude 1e38 and above count as missing, and so do blank strings.
    """
    if values.dtype == tf.string:
        return tf.equal(tf.strings.length(tf.strings.strip(values)), 0)
    if values.dtype.is_integer:
        return tf.equal(values, tf.constant(MISSING_INTEGER, values.dtype))
    # NaN compares false: it is missing as well.
    return tf.logical_not(tf.less(tf.abs(values), tf.constant(-MISSING_FLOAT, values.dtype)))
