"""The raw inputs of a logged request, as columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import input_pb2, prediction_log_pb2

from serving.client.tensor_proto import from_proto

Value = bytes | int | float
# Name of an input -> a value for each row, None where the row has none.
Columns = dict[str, list[Value | None]]

# The input of signatures that take serialized tf.Examples.
_EXAMPLES = "examples"


def request_columns(log: prediction_log_pb2.PredictionLog) -> Columns:
    """The inputs of a request for a prediction, a classification, a regression or several of them.

    Raises:
        ValueError: the log is of another kind, or the inputs are no rows.
    """
    match log.WhichOneof("log_type"):
        case "predict_log":
            return _of_tensors(log.predict_log.request.inputs)
        case "classify_log" | "regress_log" | "multi_inference_log" as kind:
            return _of_examples(_examples(getattr(log, kind).request.input))
        case kind:
            raise ValueError(f"a {kind or 'record without a request'} holds no inputs that can be compared")


def _of_tensors(tensors: Mapping[str, Any]) -> Columns:
    columns = {name: np.ravel(from_proto(tensor)).tolist() for name, tensor in tensors.items()}
    if list(columns) == [_EXAMPLES]:
        return _of_examples(_parsed(record) for record in columns[_EXAMPLES])
    if len({len(values) for values in columns.values()}) > 1:
        raise ValueError("the inputs do not have one value for each row")
    return columns


def _parsed(record: Any) -> tf.train.Example:
    try:
        return tf.train.Example.FromString(record)
    except Exception as error:
        raise ValueError("the input examples holds no serialized tf.Example") from error


def _examples(input_: input_pb2.Input) -> Iterable[tf.train.Example]:
    """Each example with the features of the context, which belong to all of them."""
    if input_.WhichOneof("kind") != "example_list_with_context":
        return input_.example_list.examples
    with_context = []
    for example in input_.example_list_with_context.examples:
        merged = tf.train.Example()
        merged.CopyFrom(input_.example_list_with_context.context)
        merged.MergeFrom(example)
        with_context.append(merged)
    return with_context


def _of_examples(examples: Iterable[tf.train.Example]) -> Columns:
    rows = [
        {name: value for name, feature in example.features.feature.items() if (value := _first(feature)) is not None}
        for example in examples
    ]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _first(feature: tf.train.Feature) -> Value | None:
    kind = feature.WhichOneof("kind")
    values = getattr(feature, kind).value if kind else ()
    return values[0] if values else None
