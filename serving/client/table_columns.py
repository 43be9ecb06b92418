"""Rows of text, as they stand in a CSV file, -> the columns that a signature takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serving.client.model_metadata import TensorDescription
from serving.client.table_value import table_value


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
