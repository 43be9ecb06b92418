"""Gain of each speed-up of Apache Beam: what `ingraph run` does up to Transform, with all of them and with all but one.

    .venv/bin/python -m benchmarks.beam_speedups [--turns 3] [--rows 0 100000]

CPU time, user and system, of a process of its own and its children, imports apart: medians of interleaved turns. Those
totals differ by a tenth from turn to turn where a machine does other work too. The gain is therefore measured within
the processes: the time in what Beam has, where the speed-up is left out, less that in what replaces it, where all are
applied, as a share of the total.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness.pipelines import CONFIGS, first_steps
from benchmarks.harness.running import own_process
from benchmarks.scale import ROWS_CONFIG, write_rows
from serving.loading import garbage_collection_paused

if TYPE_CHECKING:
    from pipeline.runners.beam_speedups import Speedup

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ALL, NONE = "all", "none"


@dataclasses.dataclass(frozen=True)
class Turn:
    """CPU seconds of a process.

    Attributes:
        total: of the steps up to Transform.
        within: what a speed-up replaces -> of them in that function of Beam, or in what replaces it.
    """

    total: float
    within: dict[str, float]


def main() -> None:
    """Print a table for each number of rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="+", default=[0, 100_000], help="0: the 303 of configs/heart.yaml")
    arguments = parser.parse_args()
    names = own_process(replaced)
    for rows in arguments.rows:
        turns = defaultdict(list)
        for _ in range(arguments.turns):
            for variant in (ALL, *names, NONE):
                turns[variant].append(own_process(measure, rows, variant))
        Console().print(_table(f"{rows:,} rows" if rows else "heart", turns))


def replaced() -> list[str]:
    """What the speed-ups replace."""
    from pipeline.runners.beam_speedups import SPEEDUPS

    return [speedup.replaces for speedup in SPEEDUPS]


def measure(rows: int, variant: str) -> Turn:
    """Run the steps up to Transform.

    Args:
        rows: of a table that is made up; 0 for the heart demo.
        variant: ALL, NONE, or what the speed-up that is left out replaces.
    """
    with garbage_collection_paused():
        import pipeline.dag  # noqa: F401 (so that its import is not timed)
        from pipeline.runners.beam_speedups import SPEEDUPS
        from pipeline.runners.local import LocalRunner  # noqa: F401

    within: dict[str, float] = defaultdict(float)
    applied = [] if variant == NONE else [_timed(speedup, variant, within) for speedup in SPEEDUPS]
    with tempfile.TemporaryDirectory() as folder:
        config = _write_table(Path(folder), rows) if rows else _copy_heart(Path(folder))
        before = _cpu_seconds()
        first_steps(str(config), applied)
        return Turn(_cpu_seconds() - before, dict(within))


def _timed(speedup: Speedup, variant: str, within: dict[str, float]) -> Speedup:
    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            started = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                within[speedup.replaces] += time.thread_time() - started

        return call

    if variant == ALL:
        return dataclasses.replace(speedup, replacement=lambda original: timed(speedup.replacement(original)))
    return dataclasses.replace(speedup, replacement=timed) if variant == speedup.replaces else speedup


def _write_table(folder: Path, rows: int) -> Path:
    write_rows(folder / "rows.csv", rows)
    (folder / "rows.yaml").write_text(ROWS_CONFIG, encoding="utf-8")
    return folder / "rows.yaml"


def _copy_heart(folder: Path) -> Path:
    shutil.copytree(CONFIGS / "schemas", folder / "schemas")
    return Path(shutil.copy(CONFIGS / "heart.yaml", folder))


def _cpu_seconds() -> float:
    return sum(os.times()[:4])


def _table(title: str, turns: dict[str, list[Turn]]) -> Table:
    table = Table("left out", "CPU s", "turns", "in Beam's", "in ours", "gain", title=title)
    for variant, found in turns.items():
        totals = [turn.total for turn in found]
        cells = ["", "", ""]
        if variant not in (ALL, NONE):
            without = median(turn.within[variant] for turn in found)
            ours = median(turn.within[variant] for turn in turns[ALL])
            cells = [f"{without:.2f} s", f"{ours:.2f} s", f"{(without - ours) / median(totals):.1%}"]
        left_out = {ALL: "nothing", NONE: "all of them"}.get(variant, variant)
        table.add_row(left_out, f"{median(totals):.1f}", " ".join(f"{total:.1f}" for total in totals), *cells)
    return table


if __name__ == "__main__":
    main()
