"""Which values are missing, in the graph."""

from __future__ import annotations

import tensorflow as tf

from serving.missing_value import MISSING_FLOAT, MISSING_INTEGER


def is_missing(values: tf.Tensor) -> tf.Tensor:
    """Which values are missing: a bool tensor of the same shape.

    Floats that are NaN, infinite or of magnitude 1e38 and above count as missing, and so do blank strings.
    """
    if values.dtype == tf.string:
        return tf.equal(tf.strings.length(tf.strings.strip(values)), 0)
    if values.dtype.is_integer:
        return tf.equal(values, tf.constant(MISSING_INTEGER, values.dtype))
    # Not as "not smaller than": the graph optimizer turns that into "at least", which NaN is not.
    far_out = tf.greater_equal(tf.abs(values), tf.constant(-MISSING_FLOAT, values.dtype))
    return tf.logical_or(tf.math.is_nan(values), far_out)
