"""Rows or columns of JSON -> tensors, as TensorFlow Serving's REST port makes them (util/json_tensor.cc)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NoReturn

import numpy as np

from serving.client.canonical_code import CanonicalCode
from serving.client.tensor_proto import DataType
from serving.server.base64_value import decode_base64, is_base64_value
from serving.server.json_document import debug_string, json_type
from serving.server.serving_error import ServingError, invalid_argument

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
