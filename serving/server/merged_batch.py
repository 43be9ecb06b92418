"""Inputs of several requests -> one batch, and its outputs -> answers (batching/batching_session.cc)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from serving.client.canonical_code import CanonicalCode
from serving.server.serving_error import ServingError, invalid_argument

Tensors = Mapping[str, np.ndarray]


def batch_rows(inputs: Tensors) -> int:
    """How many rows a request has.

    Raises:
        ServingError: INVALID_ARGUMENT, the inputs have no common first dimension.
    """
    if not inputs:
        raise invalid_argument("Batching Run() must have at least one input tensor")
    if any(array.ndim == 0 for array in inputs.values()):
        raise invalid_argument("Batching Run() input tensors must have at least one dimension")
    rows = {len(array) for array in inputs.values()}
    if len(rows) > 1:
        raise invalid_argument("Batching Run() input tensors must have equal 0th-dimension size")
    return rows.pop()


def merge(requests: Sequence[Tensors], rows: int) -> dict[str, np.ndarray]:
    """One batch of so many rows: the requests' own, one after the other, and the last request's first row as filling.

    Inputs of different lengths are padded with their own first value, as TensorFlow Serving does.

    Raises:
        ServingError: INVALID_ARGUMENT, an empty input among longer ones.
    """
    merged = {}
    for name in requests[0]:
        arrays = [request[name] for request in requests]
        if len({array.shape[1:] for array in arrays}) > 1:
            longest = np.max([array.shape[1:] for array in arrays], axis=0)
            arrays = [_padded(array, longest) for array in arrays]
        missing = rows - sum(len(array) for array in arrays)
        if missing:
            arrays.append(np.repeat(arrays[-1][:1], missing, axis=0))
        merged[name] = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
    return merged


def split(outputs: Tensors, rows: Sequence[int], merged_rows: int) -> list[dict[str, np.ndarray]]:
    """The answer to each request, of so many rows each.

    Raises:
        ServingError: FAILED_PRECONDITION, an output has not one row for each row of the batch.
    """
    for array in outputs.values():
        if array.ndim == 0:
            raise ServingError(CanonicalCode.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions")
        if len(array) != merged_rows:
            raise ServingError(
                CanonicalCode.FAILED_PRECONDITION,
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
                "tensors",
            )
    ends = np.cumsum(rows).tolist()
    return [
        {name: array[end - count : end] for name, array in outputs.items()}
        for end, count in zip(ends, rows, strict=True)
    ]


def _padded(array: np.ndarray, longest: np.ndarray) -> np.ndarray:
    missing = [(0, 0), *((0, int(wanted) - size) for wanted, size in zip(longest, array.shape[1:], strict=True))]
    if not any(after for _, after in missing):
        return array
    if not array.size:
        raise invalid_argument("Got empty tensor in batch of non-empty tensors.")
    return np.pad(array, missing, constant_values=array.flat[0])
