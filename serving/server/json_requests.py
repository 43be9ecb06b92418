"""JSON requests -> tensors and tf.Examples, as TensorFlow Serving reads them (util/json_tensor.cc)."""

from __future__ import annotations

import binascii
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from itertools import chain
from typing import Any, NoReturn

import numpy as np
import orjson
import tensorflow as tf
from tensorflow_serving.apis import input_pb2

from serving.client.errors import CanonicalCode
from serving.client.tensors import DataType
from serving.loading import garbage_collection_off
from serving.server.errors import ServingError, invalid_argument


def is_base64_value(value: Any) -> bool:
    """Whether a JSON value is such an object: one key, and a string behind it."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def decode_base64(text: str) -> bytes | None:
    """The bytes of standard base64, None where it is none; padding may be missing, whitespace is skipped.

    As absl::Base64Unescape.
    """
    for candidate in (text, "".join(text.split())):
        try:
            return binascii.a2b_base64(candidate + "=" * (-len(candidate) % 4), strict_mode=True)
        except ValueError:
            continue
    return None


DEBUG_CHARACTERS = 256
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_WHITESPACE = b" \t\r\n"

# RapidJSON's words for what Python's decoder reports.
_PARSE_ERRORS = {
    "Expecting value": "Invalid value.",
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Unterminated string starting at": "Missing a closing quotation mark in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
    "Invalid control character at": "Invalid encoding in string.",
}


# A count over a whole body would keep every other thread waiting for as long as it takes.
_COUNTED_BYTES = 2**20


def document_bytes(body: bytes | bytearray, enough: int = 2**62) -> int:
    """What a body takes, from above, once it is parsed and made into arrays; measured, for every kind of value.

    Args:
        body: of the request.
        enough: where it is clear that there is more, it is not counted to the end.
    """
    total, has_strings = 0, False
    for start in range(0, len(body), _COUNTED_BYTES):
        end = min(start + _COUNTED_BYTES, len(body))
        objects, colons = body.count(b"{", start, end), body.count(b":", start, end)
        values = body.count(b",", start, end) + body.count(b"[", start, end)
        quotes = body.count(b'"', start, end)
        strings = max(0, quotes // 2 - colons)
        has_strings = has_strings or quotes > 2 * colons
        total += 72 * values + 64 * objects + 140 * min(objects, colons) + 80 * colons + 120 * strings
        if total > enough:
            return total
    # A string of which one character is not Latin takes up to four bytes for each of them.
    wide = has_strings and (not body.isascii() or b"\\u" in body)
    return total + (6 if wide else 3 if has_strings else 1) * len(body)


def parse_document(body: bytes | bytearray, grow: Callable[[int], None] = lambda more: None) -> dict[str, Any]:
    """The JSON object at the start of a request body.

    NaN and infinities are accepted as bare tokens, of a key that comes twice the first counts, whatever follows the
    first document is ignored, and bytes that are no UTF-8 are kept as surrogate escapes.

    Args:
        body: of the request.
        grow: told of bytes that it takes besides `document_bytes`.

    Raises:
        ServingError: INVALID_ARGUMENT, the body does not begin with a JSON object.
    """
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    with garbage_collection_off() if len(body) > _LARGE_BODY else nullcontext():
        document = _parsed(body, grow)
    if not isinstance(document, dict):
        raise invalid_argument(f"JSON Value: {debug_string(document)} Is not object")
    return document


# Smaller ones are parsed before the collector has come once.
_LARGE_BODY = 2**16


def _parsed(body: bytes | bytearray, grow: Callable[[int], None]) -> Any:
    try:
        document = orjson.loads(body)
        if _keys_may_repeat(body, document):
            grow(5 * len(body))
            document = _parse_leniently(body)
    except orjson.JSONDecodeError:
        grow(5 * len(body))  # once as a text of up to four bytes for each character, and once as bytes
        document = _parse_leniently(body)
    return document


def debug_string(value: Any) -> str:
    """A JSON value as it stands in error messages, cut to 256 characters."""
    pieces = json.JSONEncoder(ensure_ascii=False).iterencode(value)
    kept, characters = [], 0
    for piece in pieces:
        kept.append(piece)
        characters += len(piece)
        if characters >= DEBUG_CHARACTERS:
            break
    # Surrogate escapes stand for bytes that are no UTF-8; an answer has to be.
    return "".join(kept)[:DEBUG_CHARACTERS].encode("utf-8", "replace").decode()


def json_type(value: Any) -> str:
    """RapidJSON's word for the type of a JSON value."""
    names = {bool: str(value), int: "Number", float: "Number", str: "String", dict: "Object", list: "Array"}
    return names.get(type(value), "Null")


_KEY_APART = re.compile(rb'"[ \t\r\n]+:')


def _keys_may_repeat(body: bytes | bytearray, document: Any) -> bool:
    """Whether there are more keys in a body than in what it was parsed to, where the last of each is left."""
    if _KEY_APART.search(body):
        return body.count(b":") != _keys(document)
    return body.count(b'":') != _keys(document)


def _keys(value: Any, depth: int = 8) -> int:
    """How many keys a value has, at least: those deep in it, and of lists whose first item has none, do not count."""
    if not depth:
        return 0
    if isinstance(value, dict):
        return len(value) + sum(_keys(item, depth - 1) for item in value.values() if isinstance(item, dict | list))
    if not isinstance(value, list) or not value or not isinstance(value[0], dict | list):
        return 0
    first = value[0]
    plain = isinstance(first, dict) and not any(isinstance(item, dict | list) for item in first.values())
    if plain and set(map(type, value)) == {dict}:
        return sum(map(len, value))
    return sum(_keys(item, depth - 1) for item in value if isinstance(item, dict | list))


# What RapidJSON takes for numbers besides what Python does; strings come first, so that nothing in them is taken.
_NUMBERS = re.compile(r'"(?:[^"\\]|\\.)*+"|-?Inf(?!inity)\b|-NaN', re.DOTALL)
_SURROGATES = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)


def _parse_leniently(body: bytes | bytearray) -> Any:
    text = body.removeprefix(_BYTE_ORDER_MARK).lstrip(_WHITESPACE).decode("utf-8", "surrogateescape")
    offset = len(body) - len(text.encode("utf-8", "surrogateescape"))
    if not text:
        raise invalid_argument(f"JSON Parse error: The document is empty. at offset: {offset}")
    try:
        value, end = _raw_decode(text)
        _check_surrogates(text, end, offset)
        return value
    except json.JSONDecodeError as error:
        _check_surrogates(text, error.pos, offset)
        reason = _PARSE_ERRORS.get(error.msg, "Missing a comma or a closing bracket.")
        raise invalid_argument(f"JSON Parse error: {reason} at offset: {offset + error.pos}") from error
    except RecursionError as error:
        raise invalid_argument("JSON Parse error: Terminate parsing due to nesting deeper than supported.") from error


def _raw_decode(text: str) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        if not text.startswith(("Inf", "-Inf", "-NaN"), error.pos):
            raise
    rewritten = _NUMBERS.sub(lambda token: _PYTHON_NUMBERS.get(token[0], token[0]), text)
    return _DECODER.raw_decode(rewritten)


_PYTHON_NUMBERS = {"Inf": "Infinity", "-Inf": "-Infinity", "-NaN": "NaN"}


def _check_surrogates(text: str, end: int, offset: int) -> None:
    """Refuse half a surrogate pair in the escapes before the end."""
    high = None
    for escape in _SURROGATES.finditer(text, 0, end):
        code = int(escape[1], 16) if escape[1] else 0
        if high is not None:
            if not (high.end() == escape.start() and 0xDC00 <= code < 0xE000):
                break
            high = None
        elif 0xD800 <= code < 0xDC00:
            high = escape
        elif 0xDC00 <= code < 0xE000:
            high = escape
            break
    if high is not None:
        at = offset + len(text[: high.start()].encode("utf-8", "surrogateescape"))
        raise invalid_argument(f"JSON Parse error: The surrogate pair in string is invalid. at offset: {at}")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise invalid_argument("JSON Parse error: Number too big to be stored in double.")
    return value


def _integer(text: str) -> int | float:
    # What does not fit 64 bits is a double, as in RapidJSON; Python itself refuses integers of over 4,300 digits.
    if len(text) > 20:
        return _finite(text)
    value = int(text)
    return value if -(2**63) <= value < 2**64 else float(value)


def _first_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        found.setdefault(key, value)
    return found


_DECODER = json.JSONDecoder(parse_float=_finite, parse_int=_integer, object_pairs_hook=_first_of_each)


MAXIMUM_RANK = 64  # of a numpy array

_INT32 = (-(2**31), 2**31 - 1)
# The range that the JSON layer checks; narrow types are checked against int32 only and then wrap.
_INTEGER_RANGES = {
    "int32": _INT32,
    "int16": _INT32,
    "int8": _INT32,
    "uint8": _INT32,
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}


def tensors_from_rows(instances: Any, data_types: Mapping[str, DataType], document: Any) -> dict[str, np.ndarray]:
    """The tensors of `instances`: a list of values (one input) or of objects (any number of named inputs).

    Args:
        instances: the value of the request's "instances".
        data_types: what the signature's inputs are, by name.
        document: the whole request, for messages.

    Raises:
        ServingError: INVALID_ARGUMENT or UNIMPLEMENTED, with TensorFlow Serving's message.
    """
    if not isinstance(instances, list):
        raise invalid_argument(f"JSON Value: {debug_string(document)} Expecting 'instances' to be an list/array")
    if not instances:
        raise invalid_argument(f"JSON Value: {debug_string(document)} No values in 'instances' array")
    if not isinstance(instances[0], dict) and len(data_types) > 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    _check_kinds_of_rows(instances)
    if not _is_named_row(instances[0]):
        name, data_type = next(iter(data_types.items()))
        return {name: _rows_to_array(instances, data_type, "")}
    for position, row in enumerate(instances):
        _check_names(position, row, data_types)
    return {
        name: _rows_to_array([row[name] for row in instances], data_type, f" key: {name}")
        for name, data_type in data_types.items()
    }


def tensors_from_columns(inputs: Any, data_types: Mapping[str, DataType]) -> dict[str, np.ndarray]:
    """The tensors of `inputs`: one value or list (one input), or an object of them by name.

    Raises:
        ServingError: INVALID_ARGUMENT or UNIMPLEMENTED, with TensorFlow Serving's message.
    """
    if _is_named_row(inputs):
        for name in data_types:
            if name not in inputs:
                raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
        return {name: _to_array(inputs[name], data_type) for name, data_type in data_types.items()}
    if len(data_types) > 1:
        raise invalid_argument(
            "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
            "tensorinfo_map"
        )
    name, data_type = next(iter(data_types.items()))
    return {name: _to_array(inputs, data_type)}


def _is_named_row(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64_value(value)


def _check_kinds_of_rows(instances: Sequence[Any]) -> None:
    named = _is_named_row(instances[0])
    for position, row in enumerate(instances):
        if _is_named_row(row) != named:
            expected, received = ("object", "list") if named else ("value/list", "object")
            raise invalid_argument(f"Expecting {expected} but got {received} at item {position} of input list")


def _check_names(position: int, row: Mapping[str, Any], data_types: Mapping[str, DataType]) -> None:
    if row.keys() == data_types.keys():
        return
    for name in row:
        if name not in data_types:
            raise invalid_argument(
                f"Failed to process element: {position} key: {name} of 'instances' list. Error: INVALID_ARGUMENT: "
                f"JSON object: does not have named input: {name}"
            )
    raise invalid_argument(
        f"Failed to process element: {position} of 'instances' list. JSON object: {debug_string(row)} keys must be "
        f"equal to: {','.join(sorted(data_types))}"
    )


def _rows_to_array(rows: Sequence[Any], data_type: DataType, key: str) -> np.ndarray:
    shape = (len(rows), *_shape_of(rows[0]))
    array = _convert(rows, shape, data_type)
    if array is None:
        _refuse_rows(rows, data_type, key)
    return array


def _to_array(value: Any, data_type: DataType) -> np.ndarray:
    shape = _shape_of(value)
    array = _convert(value, shape, data_type)
    if array is None:
        _check_value(value, shape, data_type, 0)
        raise invalid_argument(f"JSON Value: {debug_string(value)} is no tensor")
    return array


def _shape_of(value: Any) -> tuple[int, ...]:
    """The shape that the path of first elements shows."""
    shape: list[int] = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(shape)


def _convert(value: Any, shape: tuple[int, ...], data_type: DataType) -> np.ndarray | None:
    """The array of a value of that shape; None where the value has another shape or type."""
    leaves: Sequence[Any] = [value]
    if len(shape) > MAXIMUM_RANK:
        raise invalid_argument(f"Lists are nested {len(shape)} deep; a tensor has at most {MAXIMUM_RANK} dimensions")
    for size in shape:
        if not all(type(item) is list and len(item) == size for item in leaves):
            return None
        leaves = list(chain.from_iterable(leaves))
    array = _convert_leaves(leaves, data_type)
    return None if array is None else array.reshape(shape)


def _convert_leaves(leaves: Sequence[Any], data_type: DataType) -> np.ndarray | None:
    if data_type.name == "string":
        strings = [_string_bytes(leaf) for leaf in leaves]
        if any(string is None for string in strings):
            return None
        array = np.empty(len(strings), np.object_)
        array[:] = strings
        return array
    types = set(map(type, leaves))
    if data_type.name in ("float", "double") and types <= {int, float}:
        with np.errstate(over="ignore"):  # what exceeds float32 is infinite, as in TensorFlow Serving
            return np.array(leaves, np.float64).astype(data_type.dtype)
    if data_type.name == "bool" and types <= {bool}:
        return np.array(leaves, np.bool_)
    if data_type.name in _INTEGER_RANGES and types <= {int}:
        lowest, highest = _INTEGER_RANGES[data_type.name]
        if leaves and not (lowest <= min(leaves) and max(leaves) <= highest):
            return None
        wide = np.uint64 if data_type.name == "uint64" else np.int64
        return np.array(leaves, wide).astype(data_type.dtype)
    return None


def _string_bytes(value: Any) -> bytes | None:
    if isinstance(value, str):
        try:
            return value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return None
    return decode_base64(value["b64"]) if is_base64_value(value) else None


def _refuse_rows(rows: Sequence[Any], data_type: DataType, key: str) -> NoReturn:
    """Raise the error of the first row that is not like the ones before it."""
    first_shape = _shape_of(rows[0])
    for position, row in enumerate(rows):
        shape = _shape_of(row)
        try:
            _check_value(row, shape, data_type, 0)
            if np.prod(shape) != np.prod(first_shape):
                size, expected = int(np.prod(shape)), int(np.prod(first_shape))
                raise invalid_argument(f"Expecting tensor size: {expected} but got: {size}")
            if shape != first_shape:
                raise invalid_argument(f"Expecting shape {_text(first_shape)} but got: {_text(shape)}")
        except ServingError as error:
            # TensorFlow Serving gives every one of these the same code.
            raise invalid_argument(
                f"Failed to process element: {position}{key} of 'instances' list. "
                f"Error: {error.code.name}: {error.message}"
            ) from error
    raise invalid_argument(f"JSON Value: {debug_string(rows)} is no tensor")


def _check_value(value: Any, shape: tuple[int, ...], data_type: DataType, level: int) -> None:
    """Raise the error of the first list or leaf that does not fit the shape or the type; return where all fit."""
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid_argument(
                f"JSON Value: {debug_string(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}"
            )
        if _convert_leaves([value], data_type) is None:
            raise _leaf_error(value, data_type)
        return
    if level >= len(shape):
        raise invalid_argument(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid_argument(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for item in value:
        _check_value(item, shape, data_type, level + 1)


def _leaf_error(value: Any, data_type: DataType) -> ServingError:
    if data_type.name == "string" and isinstance(value, dict):
        if is_base64_value(value):
            return invalid_argument("Unable to base64 decode")
        return invalid_argument(f"JSON Value: {debug_string(value)} not formatted correctly for base64 data")
    if data_type.name not in ("float", "double", "bool", "string", *_INTEGER_RANGES) and not isinstance(value, dict):
        return ServingError(
            CanonicalCode.UNIMPLEMENTED,
            f"Conversion of JSON Value: {debug_string(value)} to type: {data_type.name}",
        )
    return invalid_argument(
        f"JSON Value: {debug_string(value)} Type: {json_type(value)} is not of expected type: {data_type.name}"
    )


def _text(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


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
