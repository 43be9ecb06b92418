"""Requests as the raw features that Transform's graph takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from serving.is_missing import is_missing
from serving.missing_value import missing_value

Features = Mapping[str, Any]
FeatureSpec = Mapping[str, tf.io.FixedLenFeature | tf.io.VarLenFeature]


def raw_feature(values: tf.Tensor, spec: tf.io.FixedLenFeature | tf.io.VarLenFeature) -> tf.Tensor | tf.SparseTensor:
    """A request's column, [batch] or [batch, 1], in the form in which the schema describes the feature."""
    values = tf.reshape(values, [-1])
    if isinstance(spec, tf.io.FixedLenFeature):
        return tf.reshape(values, [-1, *spec.shape])
    present = tf.where(~is_missing(values))
    rows = tf.concat([present, tf.zeros_like(present)], axis=1)
    return tf.SparseTensor(rows, tf.gather_nd(values, present), [tf.size(values, tf.int64), 1])


def parse_examples(examples: tf.Tensor, spec: FeatureSpec) -> dict[str, tf.Tensor | tf.SparseTensor]:
    """Serialized tf.Examples as raw features; a feature that an example lacks is missing, never an error."""
    lenient = {
        name: tf.io.FixedLenFeature(feature.shape, feature.dtype, default_value=missing_value(feature.dtype.name))
        if isinstance(feature, tf.io.FixedLenFeature) and not feature.shape
        else feature
        for name, feature in spec.items()
    }
    parsed: dict[str, tf.Tensor | tf.SparseTensor] = tf.io.parse_example(examples, lenient)
    return parsed
