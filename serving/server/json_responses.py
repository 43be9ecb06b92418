"""Tensors and results -> the JSON that TensorFlow Serving answers with (util/json_tensor.cc)."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from tensorflow_serving.apis import classification_pb2, regression_pb2

from serving.client.tensors import data_type_of
from serving.server.errors import invalid_argument

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
