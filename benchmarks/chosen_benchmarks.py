"""Which benchmarks are run."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness.benchmark import Benchmark
from benchmarks.suite import SUITE


def chosen_benchmarks(only: Sequence[str]) -> list[Benchmark]:
    """The benchmarks of these names, all where there are none."""
    return [benchmark for benchmark in SUITE if not only or benchmark.name in only]
