"""Run the benchmarks, and write what they measured to results.json and to docs/benchmarks.md.

    python -m benchmarks                   # all, up to an hour on two cores
    python -m benchmarks --short           # up to five minutes
    python -m benchmarks --only start-up

Only a run of all benchmarks in their whole form writes; other results go where `--results` says.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from benchmarks.harness.results import RESULTS_FILE, replaced, results_page, write_results
from benchmarks.harness.running import run_suite
from benchmarks.suite import chosen_benchmarks, suite_options

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/benchmarks.md"


@click.command()
@suite_options
@click.option("--results", type=click.Path(path_type=Path), help="Write the results here, as JSON, and nowhere else.")
def main(short: bool, only: tuple[str, ...], results: Path | None) -> None:
    """Run the benchmarks one after the other; the status is 1 where one failed."""
    found = run_suite(chosen_benchmarks(only), short)
    if results or not (short or only):
        write_results(found, results or ROOT / RESULTS_FILE)
    if not (results or short or only):
        PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), results_page(found)), encoding="utf-8")
    failed = [outcome.name for outcome in found.outcomes if outcome.state == "failed"]
    figures = found.measurements().items()
    missed = [f"{name}: {figure.name}" for (name, _), figure in figures if figure.reaches_goal is False]
    for what, names in (("failed", failed), ("goals missed", missed)):
        if names:
            click.echo(f"{what}: {'; '.join(names)}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
