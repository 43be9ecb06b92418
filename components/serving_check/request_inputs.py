"""Raw requests out of examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from components.serving_check.failures import RequestRefused
from serving.missing_value import missing_value

SERIALIZED_EXAMPLES = "examples"
# An image's bytes are a feature of one of these names, and an input of either.
IMAGE_BYTES = ("image_bytes", "image")


def without_label(
    example: tf.train.Example, inputs: Iterable[str], feature_of_input: Mapping[str, str] | None = None
) -> tf.train.Example:
    """The features that a client sends: those that are inputs of serving_default.

    Args:
        example: a raw example.
        inputs: the names of the inputs.
        feature_of_input: the feature behind an input of another name; it is kept under both names.
    """
    kept = set(inputs)
    if kept & set(IMAGE_BYTES):
        kept |= set(IMAGE_BYTES)
    renamed = feature_of_input or {}
    given = example.features.feature
    features = {name: given[name] for name in kept - set(renamed) if name in given}
    for name, feature in renamed.items():
        if feature in given:
            features |= {name: given[feature], feature: given[feature]}
    return tf.train.Example(features=tf.train.Features(feature=features))


def request_inputs(
    signature: meta_graph_pb2.SignatureDef, examples: Sequence[tf.train.Example]
) -> dict[str, np.ndarray]:
    """Input name -> values, [batch]: serialized examples, or the feature of the input's name.

    A missing feature is sent in the form that `serving.missing_value` defines.

    Raises:
        RequestRefused: an example has several values where the signature takes one.
    """
    if set(signature.inputs) == {SERIALIZED_EXAMPLES}:
        # tf.Example's features are a map, which protobuf otherwise writes in any order.
        records = [example.SerializeToString(deterministic=True) for example in examples]
        return {SERIALIZED_EXAMPLES: np.array(records, dtype=object)}
    return {
        name: np.array(
            [_value(example, name, tf.as_dtype(info.dtype)) for example in examples],
            dtype=tf.as_dtype(info.dtype).as_numpy_dtype,
        )
        for name, info in signature.inputs.items()
    }


def _value(example: tf.train.Example, name: str, dtype: tf.DType) -> bytes | int | float:
    names = IMAGE_BYTES if name in IMAGE_BYTES else (name,)
    feature = next((example.features.feature[key] for key in names if key in example.features.feature), None)
    kind = (feature.WhichOneof("kind") if feature is not None else None) or ""
    values = getattr(feature, kind).value if kind else ()
    if len(values) > 1:
        raise RequestRefused(f"feature {name!r} of an example has {len(values)} values, a request takes one")
    if not values:
        missing = missing_value(dtype.name)
        return missing.encode() if isinstance(missing, str) else missing
    fits = {"bytes_list": dtype == tf.string, "int64_list": dtype.is_integer, "float_list": dtype.is_floating}
    if not fits[kind]:
        raise RequestRefused(f"feature {name!r} of an example is a {kind}, its input takes {dtype.name}")
    return values[0]
