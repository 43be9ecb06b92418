"""Rows of text, as they stand in a CSV file, -> the columns that a signature takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from serving.client.model_metadata import TensorDescription

_BOOLEANS = {"true": True, "false": False}


def table_columns(
    rows: Sequence[Mapping[str, str]],
    inputs: Mapping[str, TensorDescription],
    missing_value: Callable[[str], Any],
    source: str,
) -> dict[str, list[Any]]:
    """One list of values per input; columns that the signature does not take are left out.

    Args:
        rows: one mapping per row, all with the same columns.
        inputs: the signature's inputs.
        missing_value: the form of a missing value by dtype name, for empty cells.
        source: where the rows are from, for messages.

    Raises:
        ValueError: a column is missing, or a cell is not of its column's dtype.
    """
    missing = [name for name in inputs if name not in rows[0]]
    if missing:
        raise ValueError(f"{source} lacks {_columns(missing)}; the model takes {', '.join(inputs)}")
    return {
        name: [
            _value(row[name], description.dtype, missing_value, f"{source}, row {number}, column {name}")
            for number, row in enumerate(rows, 1)
        ]
        for name, description in inputs.items()
    }


def _value(cell: str, dtype: str, missing_value: Callable[[str], Any], place: str) -> Any:
    if not cell.strip():
        return missing_value(dtype)
    if dtype == "string":
        return cell
    try:
        if dtype == "bool":
            return _BOOLEANS[cell.strip().lower()]
        number = float(cell)
        if "int" not in dtype:
            return number
        return int(cell) if "." not in cell and "e" not in cell.lower() else _whole(number)
    except (ValueError, KeyError, OverflowError):
        raise ValueError(f"{place}: expected {dtype}, received {cell!r}") from None


def _whole(number: float) -> int:
    if not math.isfinite(number) or number != int(number):
        raise ValueError(f"{number} is no whole number")
    return int(number)


def _columns(names: Sequence[str]) -> str:
    return f"the column{'s' if len(names) > 1 else ''} {', '.join(names)}"
