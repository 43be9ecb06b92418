"""The results of a run of the benchmarks, in a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from benchmarks.harness.machine import Machine
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.outcome import Outcome

RESULTS_FILE = "benchmarks/results.json"  # in the repository


@dataclass(frozen=True)
class Results:
    """What was measured, where and when.

    Attributes:
        date: of the run, as in 2026-01-31.
        short: whether it was the short form.
        machine: that it ran on.
        outcomes: of each benchmark.
    """

    date: str
    short: bool
    machine: Machine
    outcomes: tuple[Outcome, ...]

    def measurements(self) -> dict[tuple[str, str], Measurement]:
        """(benchmark, name) -> figure."""
        return {(outcome.name, found.name): found for outcome in self.outcomes for found in outcome.measurements}


_RESULTS = TypeAdapter(Results)


def read_results(content: bytes) -> Results:
    """The results in a JSON document.

    Raises:
        pydantic.ValidationError: it holds none.
    """
    return _RESULTS.validate_json(content)


def write_results(results: Results, path: Path) -> None:
    """Write them as JSON."""
    path.write_bytes(_RESULTS.dump_json(results, indent=1, exclude_defaults=True) + b"\n")
