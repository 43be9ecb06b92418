"""Tensors: numpy arrays <-> tensorflow.TensorProto, and a caller's values as arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

MAXIMUM_BYTES = 2**31 - 1  # what one message can carry; a larger shape can only come from repeating a value

MAXIMUM_RANK = 254  # of TensorFlow


@dataclass(frozen=True)
class DataType:
    """One member of tensorflow.DataType: its number, its name in messages, its numpy dtype and its *_val field."""

    number: int
    name: str
    dtype: np.dtype[Any]
    field: str


_DATA_TYPES = tuple(
    DataType(number, name, np.dtype(dtype), field)
    for number, name, dtype, field in (
        (1, "float", np.float32, "float_val"),
        (2, "double", np.float64, "double_val"),
        (3, "int32", np.int32, "int_val"),
        (4, "uint8", np.uint8, "int_val"),
        (5, "int16", np.int16, "int_val"),
        (6, "int8", np.int8, "int_val"),
        (7, "string", np.object_, "string_val"),
        (8, "complex64", np.complex64, "scomplex_val"),
        (9, "int64", np.int64, "int64_val"),
        (10, "bool", np.bool_, "bool_val"),
        (14, "bfloat16", ml_dtypes.bfloat16, "half_val"),
        (17, "uint16", np.uint16, "int_val"),
        (18, "complex128", np.complex128, "dcomplex_val"),
        (19, "half", np.float16, "half_val"),
        (22, "uint32", np.uint32, "uint32_val"),
        (23, "uint64", np.uint64, "uint64_val"),
    )
)
_BY_NUMBER = {data_type.number: data_type for data_type in _DATA_TYPES}
_BY_DTYPE = {data_type.dtype: data_type for data_type in _DATA_TYPES}


def data_type(number: int) -> DataType:
    """The data type of a tensorflow.DataType number.

    Raises:
        ValueError: no tensor of that type can be carried (quantized, resource, variant …).
    """
    if number not in _BY_NUMBER:
        raise ValueError(f"tensors of data type number {number} cannot be sent")
    return _BY_NUMBER[number]


def data_type_named(name: str) -> DataType:
    """The data type of a name in messages, such as "float".

    Raises:
        ValueError: no tensor of that type can be carried.
    """
    for known in _DATA_TYPES:
        if known.name == name:
            return known
    raise ValueError(f"tensors of data type {name} cannot be sent")


def data_type_of(array: np.ndarray) -> DataType:
    """The data type of an array; bytes and object arrays are strings.

    Raises:
        ValueError: TensorFlow has no such type.
    """
    if array.dtype.kind in "SUO":
        return _BY_DTYPE[np.dtype(np.object_)]
    if array.dtype not in _BY_DTYPE:
        raise ValueError(f"tensors of numpy dtype {array.dtype} cannot be sent")
    return _BY_DTYPE[array.dtype]


def to_proto(array: np.ndarray, proto: Any, as_content: bool) -> None:
    """Fill an empty TensorProto.

    Args:
        array: strings as an object array of bytes.
        proto: the message to fill.
        as_content: numbers as one `tensor_content` blob (fast) and not in the typed `*_val` field, which TensorFlow
            Serving answers with.
    """
    kind = data_type_of(array)
    proto.dtype = kind.number
    proto.tensor_shape.SetInParent()  # a scalar has a shape of no dimensions, which is not the same as no shape
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    if kind.name == "string":
        proto.string_val.extend(array.ravel().tolist())
    elif as_content:
        proto.tensor_content = np.ascontiguousarray(array).tobytes()
    else:
        values, repeated = _as_field_values(array, kind), getattr(proto, kind.field)
        for start in range(
            0, len(values), _PIECE
        ):  # as one list of Python's numbers they would take many times as much
            repeated.extend(values[start : start + _PIECE].tolist())


def from_proto(proto: Any, maximum_bytes: int = MAXIMUM_BYTES) -> np.ndarray:
    """The array of a TensorProto: from `tensor_content`, or from `*_val`, whose last value then fills the shape.

    Args:
        proto: the message.
        maximum_bytes: of the array.

    Raises:
        ValueError: the message describes no tensor.
    """
    return array_of(proto, *check_shape(proto, maximum_bytes))


def array_of(proto: Any, kind: DataType, shape: tuple[int, ...]) -> np.ndarray:
    """As `from_proto`, of what `check_shape` has returned.

    Raises:
        ValueError: the message describes no tensor.
    """
    size = math.prod(shape)
    if proto.tensor_content:
        if kind.name == "string" or len(proto.tensor_content) != size * kind.dtype.itemsize:
            raise ValueError(f"tensor_content has {len(proto.tensor_content)} bytes, which is not {list(shape)}")
        return np.frombuffer(proto.tensor_content, kind.dtype).reshape(shape)
    values = _from_field_values(getattr(proto, kind.field), kind)[:size]
    if len(values) < size:
        padding: Any = values[-1] if len(values) else (b"" if kind.name == "string" else kind.dtype.type(0))
        given, values = values, np.empty(size, kind.dtype)
        values[: len(given)] = given
        values[len(given) :] = padding
    return values.reshape(shape)


def check_shape(proto: Any, maximum_bytes: int = MAXIMUM_BYTES) -> tuple[DataType, tuple[int, ...]]:
    """The data type and the shape of a TensorProto.

    Raises:
        ValueError: no tensor of so many bytes can have them.
    """
    kind = data_type(proto.dtype)
    tensor_shape = proto.tensor_shape
    if tensor_shape.unknown_rank:
        raise ValueError("the tensor's shape is unknown")
    shape = tuple([dim.size for dim in tensor_shape.dim])
    if len(shape) > MAXIMUM_RANK:
        raise ValueError(f"the tensor has {len(shape)} dimensions; there may be {MAXIMUM_RANK}")
    if min(shape, default=0) < 0 or math.prod(shape) * kind.dtype.itemsize > maximum_bytes:
        raise ValueError(f"the tensor's shape {list(shape)} is negative or too large")
    return kind, shape


STRING_BYTES = 96  # what each string takes besides its bytes: in a message, in Python and in TensorFlow


def declared_bytes(proto: Any, kind: DataType, shape: tuple[int, ...]) -> int:
    """What the array of a TensorProto takes in numpy and in TensorFlow; small messages may declare large ones.

    Of an array without values, what its rows take: a model that maps over them makes as many tensors of it.
    """
    size = math.prod(shape)
    if not size:
        return math.prod(shape[: shape.index(0)]) * STRING_BYTES
    if kind.name != "string":
        return 2 * size * kind.dtype.itemsize
    strings = proto.string_val
    last = len(strings[-1]) if len(strings) else 0
    content = sum(map(len, strings)) + max(size - len(strings), 0) * last
    return max(size, len(strings)) * STRING_BYTES + 2 * content


_PIECE = 65536


def _as_field_values(array: np.ndarray, kind: DataType) -> np.ndarray:
    flat = np.ascontiguousarray(array).ravel()
    if kind.field == "half_val":
        return flat.view(np.uint16)
    if kind.dtype.kind == "c":
        return flat.view(flat.real.dtype)
    return flat


def _from_field_values(values: Any, kind: DataType) -> np.ndarray:
    if kind.name == "string":
        strings = np.empty(len(values), np.object_)
        strings[:] = list(values)
        return strings
    if kind.field == "half_val":  # of which the lower 16 bits count
        return np.fromiter(values, np.int32, len(values)).astype(np.uint16).view(kind.dtype)
    if kind.dtype.kind == "c":
        part = np.float32 if kind.dtype.itemsize == 8 else np.float64
        return np.fromiter(values, part, len(values)).view(kind.dtype)
    if kind.field == "int_val":  # narrow types wrap, as in TensorFlow
        return np.fromiter(values, np.int32, len(values)).astype(kind.dtype)
    return np.fromiter(values, kind.dtype, len(values))


def input_array(name: str, values: Any, dtype: str) -> np.ndarray:
    """The array of (nested) values: strings as an object array of bytes, numbers in the dtype that the model declares.

    Args:
        name: the input's name, for messages.
        values: a value, a nested list of them or an array.
        dtype: as in TensorDescription.

    Raises:
        ValueError: the values are ragged, or would lose something in that dtype.
    """
    wanted = data_type_named(dtype).dtype
    try:
        if wanted.kind == "O":
            return _strings(values)
        array = np.asarray(values)
        if not np.can_cast(array.dtype, wanted, "same_kind") and array.size:
            raise ValueError(f"{array.dtype} is no {dtype}")
        # From the values themselves: numpy then refuses integers that do not fit.
        return array.astype(wanted) if isinstance(values, np.ndarray) else np.asarray(values, wanted)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"input {name!r} must be a regular array of {dtype}: {error}") from error


def _strings(values: Any) -> np.ndarray:
    array = np.array(values, np.object_)
    flat = array.ravel()
    for position, value in enumerate(flat):
        if isinstance(value, str):
            flat[position] = value.encode()
        elif not isinstance(value, bytes):
            raise TypeError(f"received {type(value).__name__} {value!r}")
    return flat.reshape(array.shape)
