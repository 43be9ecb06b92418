"""JSON values -> tensors, and tensors and results -> JSON, as TensorFlow Serving does both (util/json_tensor.cc)."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NoReturn

import numpy as np
from tensorflow_serving.apis import classification_pb2, regression_pb2

from serving.client.errors import CanonicalCode
from serving.client.tensors import DataType, data_type_of
from serving.server.errors import ServingError, debug_string, invalid_argument, json_type

# So many values of a large tensor, and characters of a long string, are converted at a time, so that no other thread
# waits long for the lock of the interpreter.
PART_VALUES = 2**16
LONG_STRING = 2**20  # a multiple of four


def is_base64_value(value: Any) -> bool:
    """Whether a JSON value is such an object: one key, and a string behind it."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def decode_base64(text: str) -> bytes | None:
    """The bytes of standard base64, None where it is none; padding may be missing, whitespace is skipped.

    As absl::Base64Unescape.
    """
    try:
        return _decoded(text + "=" * (-len(text) % 4))
    except ValueError:
        text = "".join(text.split())
    try:
        return _decoded(text + "=" * (-len(text) % 4))
    except ValueError:
        return None


def _decoded(text: str) -> bytes:
    if len(text) < LONG_STRING or 0 <= text.find("=") < len(text) - 2:
        return binascii.a2b_base64(text, strict_mode=True)
    parts = (text[start : start + LONG_STRING] for start in range(0, len(text), LONG_STRING))
    return b"".join(binascii.a2b_base64(part, strict_mode=True) for part in parts)


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
    count = 1
    for level, size in enumerate(shape):
        if not all(type(item) is list and len(item) == size for item in leaves):
            return None
        count = len(leaves) * size
        if count <= PART_VALUES:
            leaves = list(chain.from_iterable(leaves))
        elif level < len(shape) - 1:
            leaves = [leaf for block in _flattened(leaves, size) for leaf in block]
    if count <= PART_VALUES:
        array = _convert_leaves(leaves, data_type)
    else:
        array = _convert_blocks(_flattened(leaves, size), count, data_type)
    return None if array is None else array.reshape(shape)


def _blocks(values: list[Any]) -> Iterator[list[Any]]:
    return (values[start : start + PART_VALUES] for start in range(0, len(values), PART_VALUES))


def _flattened(rows: Sequence[Any], size: int) -> Iterator[list[Any]]:
    """What lists of that size hold, a block at a time."""
    if size > PART_VALUES:
        for row in rows:
            yield from _blocks(row)
        return
    together = PART_VALUES // max(1, size)
    for start in range(0, len(rows), together):
        yield list(chain.from_iterable(rows[start : start + together]))


def _convert_blocks(blocks: Iterable[list[Any]], count: int, data_type: DataType) -> np.ndarray | None:
    """As `_convert_leaves` of all of them, which are so many values."""
    array, at = None, 0
    for block in blocks:
        part = _convert_leaves(block, data_type)
        if part is None:
            return None
        if array is None:
            array = np.empty(count, part.dtype)
        array[at : at + len(part)] = part
        at += len(part)
    return array


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
            return value.encode("utf-8", "surrogateescape") if len(value) < LONG_STRING else _encoded(value)
        except UnicodeEncodeError:
            return None
    return decode_base64(value["b64"]) if is_base64_value(value) else None


def _encoded(text: str) -> bytes:
    parts = (text[start : start + LONG_STRING] for start in range(0, len(text), LONG_STRING))
    return b"".join(part.encode("utf-8", "surrogateescape") for part in parts)


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


_SIGNIFICANT_DIGITS = {np.dtype(np.float32): 9, np.dtype(np.float64): 17}
_NON_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def float_texts(values: np.ndarray) -> list[str]:
    """Six digits where they name the value exactly, else all; whole numbers get ".0", so that they read as floats.

    Args:
        values: float32 or float64 [n].
    """
    texts = [f"{value:g}" for value in values.tolist()]
    if not texts:
        return texts
    read_back = np.array(texts).astype(values.dtype)
    digits = _SIGNIFICANT_DIGITS[values.dtype]
    for position in np.flatnonzero(read_back != values):
        texts[position] = f"{float(values[position]):.{digits}g}"
    return [_NON_FINITE.get(text, text if "." in text or "e" in text else f"{text}.0") for text in texts]


BYTES_SUFFIX = "_bytes"  # string outputs of such a name are binary: {"b64": "…"}
_WRITTEN_FLOATS = {np.dtype(np.float32), np.dtype(np.float64)}
_WRITTEN_INTEGERS = {np.dtype(name) for name in ("int8", "int16", "int32", "int64", "uint8", "uint32", "uint64")}


def rows_to_json(outputs: Mapping[str, np.ndarray]) -> bytes | bytearray:
    """The answer to a request with "instances": {"predictions": […]}, a list of values or, of several outputs, objects.

    Raises:
        ServingError: INVALID_ARGUMENT, the outputs are no rows of one batch, or of a type that JSON cannot carry.
    """
    _check_batch(outputs)
    if len(outputs) == 1:
        name, array = next(iter(outputs.items()))
        if not len(array):
            return b'{\n    "predictions": []\n}'
        return _joined(['{\n    "predictions": [', *_separated(_row_pieces(name, array)), "\n    ]\n}"])
    return _joined(_objects(outputs))


def columns_to_json(outputs: Mapping[str, np.ndarray]) -> bytes | bytearray:
    """The answer to a request with "inputs": {"outputs": …}, a value or, of several outputs, an object of them.

    Raises:
        ServingError: INVALID_ARGUMENT, an output is of a type that JSON cannot carry.
    """
    return _joined(_columns(outputs))


# So many values are written at a time: as Python's objects they take many times what they take in an array.
PIECE_VALUES = 65536


def _joined(pieces: Iterable[str]) -> bytes | bytearray:
    """The pieces as one body; short answers are one piece or a few."""
    body = bytearray()
    for piece in pieces:
        body += _encode(piece)
    return body


def _columns(outputs: Mapping[str, np.ndarray]) -> Iterator[str]:
    if len(outputs) == 1:
        name, array = next(iter(outputs.items()))
        yield '{\n    "outputs": '
        yield from _pieces(name, array)
        yield "\n}"
        return
    yield '{\n    "outputs": {\n'
    for position, (name, array) in enumerate(outputs.items()):
        yield f"{',' if position else ''}{chr(10) if position else ''}        {json.dumps(name)}: "
        yield from _pieces(name, array)
    yield "\n    }\n}"


def _objects(outputs: Mapping[str, np.ndarray]) -> Iterator[str]:
    """One object for each row."""
    rows = len(next(iter(outputs.values())))
    together = max(1, PIECE_VALUES // max(1, *(array.size // max(rows, 1) for array in outputs.values())))
    yield '{\n    "predictions": [\n'
    for start in range(0, rows, together):
        block = {name: array[start : start + together] for name, array in outputs.items()}
        yield ",\n" if start else ""
        if together == 1 and any(array.size > PIECE_VALUES for array in block.values()):
            for position, (name, array) in enumerate(block.items()):
                yield f"{',' + chr(10) if position else '        {' + chr(10)}            {json.dumps(name)}: "
                yield from _pieces(name, array[0])
            yield "\n        }"
            continue
        columns = {name: _nested_texts(name, array, 1) for name, array in block.items()}
        yield ",\n".join(
            "        {\n"
            + ",\n".join(f"            {json.dumps(name)}: {text}" for name, text in zip(columns, texts, strict=True))
            + "\n        }"
            for texts in zip(*columns.values(), strict=True)
        )
    yield "\n    ]\n}"


def _pieces(name: str, array: np.ndarray) -> Iterator[str]:
    """The JSON of an array, in parts of a limited number of values."""
    if array.size <= PIECE_VALUES or array.ndim == 0:
        yield _nested_texts(name, array, 0)[0]
        return
    yield "["
    yield from _separated(_row_pieces(name, array))
    yield "]"


def _row_pieces(name: str, array: np.ndarray) -> Iterator[Iterator[str]]:
    """The JSON of the rows of an array, several rows at a time, or one row in parts."""
    together = PIECE_VALUES // max(1, array.size // len(array))
    if together:
        for start in range(0, len(array), together):
            yield iter((", ".join(_nested_texts(name, array[start : start + together], 1)),))
    else:
        for row in array:
            yield _pieces(name, row)


def _separated(parts: Iterable[Iterable[str]]) -> Iterator[str]:
    for position, part in enumerate(parts):
        if position:
            yield ", "
        yield from part


def error_to_json(message: str) -> bytes:
    """The body of every error: one key."""
    return _encode(f'{{\n    "error": {json.dumps(message, ensure_ascii=False)}\n}}')


def _check_batch(outputs: Mapping[str, np.ndarray]) -> None:
    sizes: dict[str, int] = {}
    for name, array in outputs.items():
        if array.ndim == 0:
            raise invalid_argument(f"Tensor name: {name} has no shape information ")
        sizes[name] = array.shape[0]
        expected = next(iter(sizes.values()))
        if sizes[name] != expected:
            raise invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: {sizes[name]} expecting: {expected}"
            )


def _nested_texts(name: str, array: np.ndarray, depth: int) -> list[str]:
    """The JSON of each part of an array below `depth` dimensions, in order."""
    texts: Sequence[str] = _value_texts(name, array)
    for axis in range(array.ndim - 1, depth - 1, -1):
        size = array.shape[axis]
        parts = math.prod(array.shape[:axis])
        texts = [f"[{', '.join(texts[part * size : (part + 1) * size])}]" for part in range(parts)]
    return list(texts)


def _value_texts(name: str, array: np.ndarray) -> list[str]:
    values = array.ravel()
    if array.dtype in _WRITTEN_FLOATS:
        return float_texts(values)
    if array.dtype == np.bool_:
        return ["true" if value else "false" for value in values.tolist()]
    if array.dtype in _WRITTEN_INTEGERS:
        return [str(value) for value in values.tolist()]
    if array.dtype.kind == "O":
        return [_string_text(value, name.endswith(BYTES_SUFFIX)) for value in values.tolist()]
    raise invalid_argument(f"Failed to write JSON value for tensor type: {data_type_of(array).name}")


def _string_text(value: bytes, binary: bool) -> str:
    if binary:
        return f'{{"b64": "{base64.b64encode(value).decode()}"}}'
    return json.dumps(value.decode("utf-8", "surrogateescape"), ensure_ascii=False)


def _encode(text: str) -> bytes:
    # Strings that are no UTF-8 leave as the bytes they are.
    return text.encode("utf-8", "surrogateescape")


def classifications_to_json(result: classification_pb2.ClassificationResult) -> bytes:
    """{"results": …}: per example a list of [label, score]."""
    rows = []
    for classifications in result.classifications:
        scores = float_texts(np.array([entry.score for entry in classifications.classes], np.float32))
        pairs = zip(classifications.classes, scores, strict=True)
        rows.append(", ".join(f"[{json.dumps(entry.label, ensure_ascii=False)}, {score}]" for entry, score in pairs))
    lists = ", ".join(f"[{row}]" for row in rows)
    return f'{{\n    "results": [{lists}\n    ]\n}}'.encode()


def regressions_to_json(result: regression_pb2.RegressionResult) -> bytes:
    """{"results": …}: one number per example."""
    values = float_texts(np.array([regression.value for regression in result.regressions], np.float32))
    return f'{{\n    "results": [{", ".join(values)}]\n}}'.encode()
