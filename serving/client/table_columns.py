"""A cell of text, as it stands in a CSV file, -> the value that a signature takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from serving.client.metadata import TensorDescription
from serving.missing_values import missing_value

_BOOLEANS = {"true": True, "false": False}


def table_value(cell: str, dtype: str) -> Any:
    """The value of a cell; the missing value where it is blank.

    Args:
        cell: the text.
        dtype: as in TensorDescription.

    Raises:
        ValueError: the cell is not of this dtype.
    """
    try:
        if not cell.strip():
            return missing_value(dtype)
        if dtype == "string":
            return cell
        if dtype == "bool":
            return _BOOLEANS[cell.strip().lower()]
        number = float(cell)
        if "int" not in dtype:
            return number
        return int(cell) if "." not in cell and "e" not in cell.lower() else _whole(number)
    except (ValueError, TypeError, KeyError, OverflowError):
        raise ValueError(f"expected {dtype}, received {cell!r}") from None


def _whole(number: float) -> int:
    if not math.isfinite(number) or number != int(number):
        raise ValueError(f"{number} is no whole number")
    return int(number)


def table_columns(
    rows: Sequence[Mapping[str, str]],
    inputs: Mapping[str, TensorDescription],
    source: str,
) -> dict[str, list[Any]]:
    """One list of values per input, missing values for empty cells, no columns that the signature lacks.

    Args:
        rows: one mapping per row, all with the same columns.
        inputs: the signature's inputs.
        source: where the rows are from, for messages.

    Raises:
        ValueError: a column is missing, or a cell is not of its column's dtype.
    """
    missing = [name for name in inputs if name not in rows[0]]
    if missing:
        raise ValueError(f"{source} lacks {_columns(missing)}; the model takes {', '.join(inputs)}")
    return {
        name: [
            _value(row[name], description.dtype, f"{source}, row {number}, column {name}")
            for number, row in enumerate(rows, 1)
        ]
        for name, description in inputs.items()
    }


def _value(cell: str, dtype: str, place: str) -> Any:
    try:
        return table_value(cell, dtype)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _columns(names: Sequence[str]) -> str:
    return f"the column{'s' if len(names) > 1 else ''} {', '.join(names)}"
