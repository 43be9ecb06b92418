"""The hearts three ways: ingraph, TFX's own components with the obvious preprocessing, and a plain Keras script.

    .venv/bin/python -m benchmarks.tabular.pipelines

The same rows, the same kind of model, as many epochs. The three take turns, each in a process of its own whose imports
are not timed; told are medians. The script checks nothing and has no graph for raw rows to be checked against; TFX's
components do neither look at what is served now nor at whether the export serves what was trained.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence

from benchmarks.harness.measurement import Goal, Measurement
from benchmarks.harness.running import own_process, report
from benchmarks.timed_run import TimedRun, timed_run
from pipeline import demo_data

# A component that takes less is compared with all: a ratio of two short times is chance.
LEAST_SECONDS = 1.0
SCRIPT, STOCK, OURS = "plain Keras script", "TFX's own components", "ingraph"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    csv_file = str(demo_data.fetch("hearts"))
    scripts, stocks, ours = [], [], []
    for _ in range(options.turns):
        scripts.append(own_process(script_seconds, csv_file))
        stocks.append(own_process(timed_stock_run, csv_file))
        ours.append(own_process(timed_run, "heart"))
    report("hearts: a pipeline three ways", compared(scripts, stocks, ours))


def script_seconds(csv_file: str) -> float:
    """Seconds of benchmarks/tabular/stock_pipeline.py."""
    from benchmarks.tabular.stock_pipeline import plain_keras

    with tempfile.TemporaryDirectory() as folder:
        seconds, _ = plain_keras(csv_file, folder)
    return seconds


def timed_stock_run(csv_file: str) -> TimedRun:
    """A run of benchmarks/tabular/stock_pipeline.py."""
    from benchmarks.tabular.stock_pipeline import stock_run

    with tempfile.TemporaryDirectory() as folder:
        return stock_run(csv_file, folder)


def compared(scripts: Sequence[float], stocks: Sequence[TimedRun], ours: Sequence[TimedRun]) -> list[Measurement]:
    """The wholes, then each component beside its counterpart, or where there is none beside all of TFX's own."""
    script = statistics.median(scripts)
    stock = statistics.median(run.seconds for run in stocks)
    our = statistics.median(run.seconds for run in ours)
    found = [
        Measurement(SCRIPT, script, "s", "time"),
        Measurement(STOCK, stock, "s", "time", stock / script, SCRIPT),
        Measurement(OURS, our, "s", "time", our / stock, STOCK, Goal(1)),
        Measurement(f"{OURS} beside the script", our, "s", "time", our / script, SCRIPT),
    ]
    stock_steps = medians(stocks)
    found += [
        Measurement(f"{name}: {STOCK}", seconds, "s", "step", seconds / script, SCRIPT)
        for name, seconds in stock_steps.items()
    ]
    for name, seconds in medians(ours).items():
        same = stock_steps.get(name, 0.0) >= LEAST_SECONDS
        ratio = seconds / (stock_steps[name] if same else stock)
        beside = f"{STOCK}, {'the same' if same else 'all'}"
        found.append(Measurement(f"{name}: {OURS}", seconds, "s", "step", ratio, beside))
    return found


def medians(runs: Sequence[TimedRun]) -> Mapping[str, float]:
    """Component -> seconds."""
    return {name: statistics.median(run.steps[name] for run in runs) for name in runs[0].steps}


if __name__ == "__main__":
    main()
