"""A cell of text, as it stands in a CSV file, -> the value that a signature takes."""

from __future__ import annotations

import math
from typing import Any

from serving.missing_value import missing_value

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
