"""Gain of each speed-up of Apache Beam: what `ingraph run` does up to Transform, with all of them and with all but one.

    .venv/bin/python -m benchmarks.beam_speedups [--turns 3] [--tables heart long wide]

`heart` has 303 rows of 14 columns, `long` 100,000 of 12, `wide` 600 of 201.

CPU time, user and system, of a process of its own and its children, imports apart: medians of interleaved turns. Those
totals differ by a tenth from turn to turn where a machine does other work too. The gain is therefore measured within
the processes: the time in what Beam has, where the speed-up is left out, less that in what replaces it, where all are
applied, as a share of the total. What makes a part of a pipeline works elsewhere: its gain is that of the totals.
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

import numpy as np
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
    parser.add_argument("--tables", choices=_TABLES, nargs="+", default=_TABLES)
    arguments = parser.parse_args()
    names = own_process(replaced)
    for table in arguments.tables:
        turns = defaultdict(list)
        for _ in range(arguments.turns):
            for variant in (ALL, *names, NONE):
                turns[variant].append(own_process(measure, table, variant))
        Console().print(_table(table, turns))


def replaced() -> list[str]:
    """What the speed-ups replace."""
    from pipeline.runners.beam_speedups import SPEEDUPS

    return [speedup.replaces for speedup in SPEEDUPS]


def measure(table: str, variant: str) -> Turn:
    """Run the steps up to Transform.

    Args:
        table: one of _TABLES.
        variant: ALL, NONE, or what the speed-up that is left out replaces.
    """
    with garbage_collection_paused():
        import pipeline.dag  # noqa: F401 (so that its import is not timed)
        from pipeline.runners.beam_speedups import SPEEDUPS
        from pipeline.runners.local import LocalRunner  # noqa: F401

    within: dict[str, float] = defaultdict(float)
    applied = [] if variant == NONE else [_timed(speedup, variant, within) for speedup in SPEEDUPS]
    with tempfile.TemporaryDirectory() as folder:
        config = _TABLES[table](Path(folder))
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


def _write_long(folder: Path) -> Path:
    write_rows(folder / "rows.csv", 100_000)
    (folder / "rows.yaml").write_text(ROWS_CONFIG, encoding="utf-8")
    return folder / "rows.yaml"


def _write_wide(folder: Path) -> Path:
    numbers = np.random.default_rng(0).normal(size=(600, 200)).round(4)
    lines = [f"{','.join(map(str, row))},{int(row[0] > 0)}" for row in numbers.tolist()]
    header = ",".join([*(f"c{number}" for number in range(200)), "bought"])
    (folder / "rows.csv").write_text("\n".join([header, *lines, ""]), encoding="utf-8")
    (folder / "rows.yaml").write_text(ROWS_CONFIG, encoding="utf-8")
    return folder / "rows.yaml"


def _copy_heart(folder: Path) -> Path:
    shutil.copytree(CONFIGS / "schemas", folder / "schemas")
    return Path(shutil.copy(CONFIGS / "heart.yaml", folder))


_TABLES = {"heart": _copy_heart, "long": _write_long, "wide": _write_wide}


def _cpu_seconds() -> float:
    return sum(os.times()[:4])


def _table(title: str, turns: dict[str, list[Turn]]) -> Table:
    table = Table("left out", "CPU s", "turns", "in Beam's", "in ours", "gain", "of totals", title=title)
    for variant, found in turns.items():
        totals = [turn.total for turn in found]
        cells = ["", "", "", ""]
        if variant not in (ALL, NONE):
            without = median(turn.within[variant] for turn in found)
            ours = median(turn.within[variant] for turn in turns[ALL])
            cells = [f"{without:.2f} s", f"{ours:.2f} s", f"{(without - ours) / median(totals):.1%}"]
            cells.append(f"{1 - median(turn.total for turn in turns[ALL]) / median(totals):.1%}")
        left_out = {ALL: "nothing", NONE: "all of them"}.get(variant, variant)
        table.add_row(left_out, f"{median(totals):.1f}", " ".join(f"{total:.1f}" for total in totals), *cells)
    return table


if __name__ == "__main__":
    main()
