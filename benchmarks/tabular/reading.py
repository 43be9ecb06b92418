"""Reading tables: TableExampleGen beside pyarrow, by format.

    .venv/bin/python -m benchmarks.tabular.reading [--rows 1000000] [--only csv]

The rows are those of benchmarks.scale. pyarrow reads the same file into memory, the best of three times, in the
process in which TableExampleGen types it, splits it and writes its examples; each format has a process of its own.
Where other work runs on the machine, seconds of the processor tell more than those of the clock.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from benchmarks.harness.results import Goal, Measurement
from benchmarks.harness.running import own_process, peak_memory, report
from benchmarks.scale import write_rows

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PYARROW = "pyarrow"
READERS: dict[str, Callable[[str], Any]] = {
    "csv": pyarrow.csv.read_csv,
    "parquet": pyarrow.parquet.read_table,
    "jsonl": pyarrow.json.read_json,
}
# For 1,000,000 rows.
GOALS = {"csv": Goal(12, of="value")}


@dataclass(frozen=True, order=True)
class Seconds:
    """Of the clock; and of the processor, of all cores together."""

    clock: float
    processor: float


@dataclass(frozen=True)
class Read:
    """What one format took.

    Attributes:
        pyarrow: what pyarrow took.
        example_gen: what TableExampleGen took.
        size: of the file, in MB.
        peak: the most memory that the process had, in MiB.
    """

    pyarrow: Seconds
    example_gen: Seconds
    size: float
    peak: float


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", choices=READERS, nargs="*", default=list(READERS))
    options = parser.parse_args()
    figures: list[Measurement] = []
    for name in options.only:
        found = own_process(measure, name, options.rows)
        what = f"{options.rows:,} rows of {name} ({found.size:.0f} MB)"
        goal = GOALS.get(name) if options.rows == 1_000_000 else None
        taken, fastest = found.example_gen, found.pyarrow
        figures += [
            Measurement(f"{what}: {PYARROW}", fastest.clock, "s", "time"),
            Measurement(what, taken.clock, "s", "time", taken.clock / fastest.clock, PYARROW, goal),
            Measurement(f"{what}: {PYARROW}'s processor time", fastest.processor, "s", "time"),
            Measurement(
                f"{what}: processor time",
                taken.processor,
                "s",
                "time",
                taken.processor / fastest.processor,
                f"{PYARROW}'s",
            ),
            Measurement(f"{what}: rows", options.rows / taken.clock, "1/s", "throughput"),
            Measurement(f"{what}: peak memory", found.peak, "MiB", "memory"),
        ]
    report("tables, read and written as examples", figures)


def measure(name: str, rows: int) -> Read:
    """Write the file, and read it both ways."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"rows.{name}")
        own_process(write_table, path, rows)
        example_gen = timed(example_gen_of(path, Path(folder, "examples")))
        peak = peak_memory()
        fastest = min(timed(lambda: READERS[name](str(path))) for _ in range(3))
        return Read(fastest, example_gen, path.stat().st_size / 1e6, peak)


def timed(run: Callable[[], Any]) -> Seconds:
    """What it takes, without the garbage that was there before."""
    gc.collect()
    started, used = time.perf_counter(), time.process_time()
    run()
    return Seconds(time.perf_counter() - started, time.process_time() - used)


def write_table(path: Path, rows: int) -> None:
    """The rows in the format that the ending of the path says."""
    plain = path.with_suffix(".csv")
    write_rows(plain, rows)
    if path != plain:
        table = pyarrow.csv.read_csv(plain)
        if path.suffix == ".parquet":
            pyarrow.parquet.write_table(table, path)
        else:
            table.to_pandas().to_json(path, orient="records", lines=True)
        plain.unlink()


def example_gen_of(path: Path, output: Path) -> Callable[[], None]:
    """What the component's executor does, with all libraries imported."""
    from tfx.types import standard_artifacts

    from components.table_example_gen.component import TableExampleGen
    from components.table_example_gen.executor import Executor
    from components.table_example_gen.options import Ingestion
    from pipeline.runners.beam_speedups import apply_beam_speedups
    from pipeline.runners.local import BEAM_PIPELINE_ARGS

    apply_beam_speedups()
    component = TableExampleGen(str(path.parent), {"all": path.name}, Ingestion())
    artifact = standard_artifacts.Examples()
    artifact.uri = str(output)
    context = Executor.Context(beam_pipeline_args=BEAM_PIPELINE_ARGS, tmp_dir=f"{output}/tmp", unique_id="1")
    return lambda: Executor(context).Do({}, {"examples": [artifact]}, component.exec_properties)


if __name__ == "__main__":
    main()
