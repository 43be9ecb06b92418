"""Run benchmarks one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console

from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.machine import this_machine
from benchmarks.harness.measurements_table import measurements_table
from benchmarks.harness.outcome import Outcome
from benchmarks.harness.results import Results
from benchmarks.harness.run_benchmark import run_benchmark


def run_suite(benchmarks: Sequence[Benchmark], short: bool) -> Results:
    """Run them, printing what each measured; one that fails does not stop the others."""
    console = Console()
    outcomes = []
    for benchmark in benchmarks:
        with console.status(benchmark.title):
            outcome = run_benchmark(benchmark, short)
        _print(console, outcome)
        outcomes.append(outcome)
    return Results(datetime.now(UTC).date().isoformat(), short, this_machine(), tuple(outcomes))


def _print(console: Console, outcome: Outcome) -> None:
    if outcome.state != "measured":
        console.print(f"{outcome.name}: {outcome.state}: {outcome.reason}", markup=False)
        return
    console.print(measurements_table(f"{outcome.title} ({outcome.seconds:.0f} s)", outcome.measurements))
