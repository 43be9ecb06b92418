"""Compare a run of the benchmarks with the last committed results.

    python -m benchmarks.compare                  # runs them
    python -m benchmarks.compare --short
    python -m benchmarks.compare results.json     # of an earlier run

Only ratios are compared, each measured on both sides within one run; figures of other sizes have other names.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.harness.comparison import Change, compare
from benchmarks.harness.results import RESULTS_FILE, Results, read_results
from benchmarks.harness.running import run_suite
from benchmarks.suite import chosen_benchmarks, suite_options

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
