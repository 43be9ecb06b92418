"""The options of the commands that run the suite."""

from __future__ import annotations

from collections.abc import Callable

import click

from benchmarks.suite import SUITE


def suite_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options `--short` and `--only`."""
    names = click.Choice([benchmark.name for benchmark in SUITE])
    only = click.option("--only", type=names, multiple=True, help="Only this one; may be given several times.")
    short = click.option("--short", is_flag=True, help="Smaller sizes, fewer turns, and not all of them.")
    return short(only(command))
