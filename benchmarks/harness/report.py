"""Tell what was measured: on the screen, and to `python -m benchmarks`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter
from rich.console import Console

from benchmarks.harness.measurement import Measurement
from benchmarks.harness.measurements_table import measurements_table

# The file in which `python -m benchmarks` expects what a benchmark measured.
MEASUREMENTS_FILE = "INGRAPH_MEASUREMENTS"
_MEASUREMENTS = TypeAdapter(list[Measurement])


def report(title: str, measurements: Sequence[Measurement]) -> None:
    """Print a table, and leave the figures for `python -m benchmarks` where that started this process."""
    Console().print(measurements_table(title, measurements))
    if path := os.environ.get(MEASUREMENTS_FILE):
        Path(path).write_bytes(_MEASUREMENTS.dump_json(list(measurements)))


def reported(path: Path) -> list[Measurement]:
    """What a benchmark left in the file that it was told of.

    Raises:
        FileNotFoundError: it left nothing.
    """
    return _MEASUREMENTS.validate_json(path.read_bytes())
