"""Comparison of a run of the benchmarks with the last committed results, or with an earlier run.

    python -m benchmarks.compare                  # runs them
    python -m benchmarks.compare --short
    python -m benchmarks.compare results.json     # of an earlier run

Only ratios are compared, each measured on both sides within one run; figures of other sizes have other names.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.harness.results import RESULTS_FILE, Kind, Measurement, Results, read_results
from benchmarks.harness.running import run_suite
from benchmarks.suite import chosen_benchmarks, suite_options


@dataclass(frozen=True)
class Noise:
    """How far a ratio may get worse by chance alone.

    Attributes:
        share: of the ratio.
        least: what is never taken for a change, whatever its share.
    """

    share: float
    least: float


# Seconds on shared machines come and go by a fifth though both sides of a ratio feel it, those of a short step by half;
# memory and quality hardly move.
NOISE: Mapping[Kind, Noise] = {
    "time": Noise(share=0.25, least=0.05),
    "step": Noise(share=0.5, least=0.1),
    "memory": Noise(share=0.1, least=0.0),
    "throughput": Noise(share=0.25, least=0.0),
    "quality": Noise(share=0.02, least=0.0),
}


@dataclass(frozen=True)
class Change:
    """How a ratio moved.

    Attributes:
        benchmark: its name.
        name: of the figure.
        before: the ratio of the earlier run.
        now: the ratio of the later one.
        worse_by: the share by which it is worse; negative where it is better.
        allowed: the share that counts as noise.
    """

    benchmark: str
    name: str
    before: float
    now: float
    worse_by: float
    allowed: float

    @property
    def is_regression(self) -> bool:
        return self.worse_by > self.allowed


def compare(earlier: Results, later: Results) -> list[Change]:
    """The changes of all ratios to the same thing that both runs have."""
    known = earlier.measurements()
    return [
        _change(benchmark, known[benchmark, name], found)
        for (benchmark, name), found in later.measurements().items()
        if (benchmark, name) in known and _comparable(known[benchmark, name], found)
    ]


def _comparable(before: Measurement, now: Measurement) -> bool:
    return bool(before.ratio) and now.ratio is not None and before.beside == now.beside


def _change(benchmark: str, before: Measurement, now: Measurement) -> Change:
    assert before.ratio and now.ratio is not None
    noise = NOISE[now.kind]
    worse = before.ratio - now.ratio if now.larger_is_better else now.ratio - before.ratio
    allowed = max(noise.share, noise.least / before.ratio)
    return Change(benchmark, now.name, before.ratio, now.ratio, worse / before.ratio, allowed)


ROOT = Path(__file__).parents[1]


@click.command()
@click.argument("results", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@suite_options
@click.option("--with", "base", type=click.Path(exists=True, path_type=Path), help="Compare with this file instead.")
def main(results: Path | None, short: bool, only: tuple[str, ...], base: Path | None) -> None:
    """Run the benchmarks, or take RESULTS; the status is 1 where a ratio got worse beyond its noise, or one failed."""
    earlier = read_results(base.read_bytes() if base else committed_results())
    later = read_results(results.read_bytes()) if results else run_suite(chosen_benchmarks(only), short)
    changes = compare(earlier, later)
    regressions = [change for change in changes if change.is_regression]
    failed = [outcome for outcome in later.outcomes if outcome.state == "failed"]
    print_changes(changes)
    print_verdict(earlier, changes, regressions)
    for outcome in failed:
        click.echo(f"failed, so not compared: {outcome.name}: {outcome.reason}")
    sys.exit(bool(regressions or failed))


def committed_results() -> bytes:
    """What the last commit holds: a new run may already have overwritten the file.

    Raises:
        click.ClickException: it holds none.
    """
    shown = subprocess.run(["git", "show", f"HEAD:{RESULTS_FILE}"], cwd=ROOT, capture_output=True, check=False)
    if shown.returncode:
        raise click.ClickException(
            f"{RESULTS_FILE} is not in the last commit: `make bench` writes it; or give a file by --with"
        )
    return shown.stdout


def print_changes(changes: list[Change]) -> None:
    """Print a row for each ratio, the worst first."""
    table = Table("benchmark", "", "before", "now", "worse by", "noise")
    for change in sorted(changes, key=lambda change: change.allowed - change.worse_by):
        shares = f"{change.worse_by:+.0%}", f"{change.allowed:.0%}"
        style = "bold red" if change.is_regression else None
        table.add_row(change.benchmark, change.name, f"{change.before:.2f}", f"{change.now:.2f}", *shares, style=style)
    Console().print(table)


def print_verdict(earlier: Results, changes: list[Change], regressions: list[Change]) -> None:
    """Say how many ratios were compared, and which got worse."""
    click.echo(f"compared with {earlier.date}: {len(changes)} ratios, {len(regressions)} worse beyond noise")
    for change in regressions:
        click.echo(f"regression: {change.benchmark}: {change.name}: {change.before:.2f} -> {change.now:.2f}")


if __name__ == "__main__":
    main()
