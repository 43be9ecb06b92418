"""What a caller gives as an input -> the array that is sent."""

from __future__ import annotations

from typing import Any

import numpy as np

from serving.client.tensor_proto import data_type_named


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
