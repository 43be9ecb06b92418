"""JSON -> tf.Examples, as TensorFlow Serving's REST port makes them for classify and regress (util/json_tensor.cc)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow_serving.apis import input_pb2

from serving.server.base64_value import decode_base64, is_base64_value
from serving.server.json_document import debug_string, json_type
from serving.server.serving_error import ServingError, invalid_argument

_KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}


def input_from_json(document: dict[str, Any]) -> input_pb2.Input:
    """The Input of a request's "examples", a list of objects, and "context", an object that belongs to all of them.

    Raises:
        ServingError: INVALID_ARGUMENT, with TensorFlow Serving's message.
    """
    result = input_pb2.Input()
    if "context" in document:
        result.example_list_with_context.context.CopyFrom(_example(document["context"]))
        examples = result.example_list_with_context.examples
    else:
        examples = result.example_list.examples
    examples.extend(_example(value) for value in _checked_examples(document))
    return result


def _checked_examples(document: dict[str, Any]) -> list[Any]:
    if "examples" not in document:
        raise _format_error(document, "When method is classify, key 'examples' is expected and was not found")
    examples = document["examples"]
    if not isinstance(examples, list):
        raise _format_error(document, "Expecting 'examples' value to be an list/array")
    if not examples:
        raise _format_error(document, "'examples' value is an empty array")
    return examples


def _format_error(document: dict[str, Any], message: str) -> ServingError:
    return invalid_argument(f"JSON Value: {debug_string(document)} {message}")


def _example(value: Any) -> tf.train.Example:
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {json_type(value)}")
    example = tf.train.Example()
    for name, content in value.items():
        try:
            feature = example.features.feature[name]
        except (UnicodeEncodeError, ValueError) as error:  # half a surrogate pair, or bytes that are no UTF-8
            raise invalid_argument(f"Feature name {debug_string(name)} is no UTF-8 text") from error
        for item in content if isinstance(content, list) else [content]:
            _add(item, name, feature)
    return example


def _add(value: Any, name: str, feature: tf.train.Feature) -> None:
    if value is None or isinstance(value, list) or (isinstance(value, dict) and not is_base64_value(value)):
        raise invalid_argument(f"Feature: {name} has element with unexpected JSON type: {json_type(value)}")
    kind = _kind(value)
    present = feature.WhichOneof("kind")
    if present not in (None, kind):
        raise invalid_argument(f"Unexpected element type in feature: {name} expecting type: {_KINDS[present]}")
    if kind == "int64_list":
        if value >= 2**63:
            raise invalid_argument(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
        feature.int64_list.value.append(int(value))
    elif kind == "float_list":
        feature.float_list.value.append(value)
    else:
        feature.bytes_list.value.append(_bytes(value))


def _kind(value: Any) -> str:
    if isinstance(value, int):  # true and false are 1 and 0
        return "int64_list"
    return "float_list" if isinstance(value, float) else "bytes_list"


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise invalid_argument("JSON Parse error: Invalid encoding in string.") from error
    decoded = decode_base64(value["b64"])
    if decoded is None:
        raise invalid_argument("Unable to base64 decode")
    return decoded
