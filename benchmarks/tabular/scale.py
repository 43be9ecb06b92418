"""Time and memory of tables by their number of rows: what `ingraph run` does up to Transform.

    .venv/bin/python -m benchmarks.tabular.scale [--rows 10000 100000 1000000]

Rows of twelve columns are made up, the same ones each time; every size runs in a process of its own, on the components,
the runner and the Beam options of `ingraph run`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.harness.measurement import Goal
from benchmarks.harness.pipelines import Scale, first_steps, growth
from benchmarks.harness.running import own_process, peak_memory, report

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


CONFIG = """
name: rows
task: tabular
data: {path: rows.csv}
preprocessing: {label: {column: bought}}
evaluation: {at_least: {auc: 0.5}}
"""
CITIES, PLANS, CHANNELS = 200, 4, 6
MEMORY_LIMIT = 4096
ROWS_AT_ONCE = 100_000


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    found = [own_process(measure, rows) for rows in parser.parse_args().rows]
    report("tables by their rows", growth("rows", found, Goal(1.1), Goal(MEMORY_LIMIT, of="value")))


def measure(rows: int) -> Scale:
    """Make the rows up, and run the pipeline on them."""
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder, "rows.csv"), rows)
        Path(folder, "rows.yaml").write_text(CONFIG, encoding="utf-8")
        steps = first_steps(f"{folder}/rows.yaml")
    return Scale(rows, steps, peak_memory())


def write_rows(path: Path, rows: int) -> None:
    """A CSV file of made-up customers."""
    chance = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        file.write("age,income,visits,balance,score,height,month,city,plan,device,channel,bought\n")
        for start in range(0, rows, ROWS_AT_ONCE):
            file.writelines(f"{row}\n" for row in customers(chance, min(ROWS_AT_ONCE, rows - start)))


def customers(chance: np.random.Generator, count: int) -> list[str]:
    """Lines of the file; who buys depends on income and visits, and on chance."""
    income, visits = chance.lognormal(3, 0.5, count).round(2), chance.poisson(4, count)
    bought = (income / 20 + visits / 4 + chance.normal(0, 1, count) > 2.5).astype(int)
    columns = [
        chance.integers(18, 90, count),
        income,
        visits,
        chance.normal(0, 100, count).round(2),
        chance.random(count).round(4),
        chance.normal(170, 10, count).round(1),
        chance.integers(1, 13, count),
        np.char.add("city", chance.integers(0, CITIES, count).astype(str)),
        np.char.add("plan", chance.integers(0, PLANS, count).astype(str)),
        chance.choice(["phone", "tablet", "computer"], count),
        np.char.add("channel", chance.integers(0, CHANNELS, count).astype(str)),
        bought,
    ]
    return [",".join(map(str, row)) for row in zip(*(column.tolist() for column in columns), strict=True)]


if __name__ == "__main__":
    main()
