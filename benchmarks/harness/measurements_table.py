"""Measurements on the screen."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from benchmarks.harness.measurement import Measurement
from benchmarks.harness.table_cells import HEADINGS, table_cells


def measurements_table(title: str, measurements: Sequence[Measurement]) -> Table:
    """A table for rich to print."""
    table = Table(*HEADINGS, title=title)
    for measurement in measurements:
        table.add_row(*table_cells(measurement))
    return table
