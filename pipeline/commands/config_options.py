"""Options of the commands that take a config: --set and --workdir."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., Any]


def config_options(
    overriding: str, made_in_workdir: str = "Where runs/ and models/ are made."
) -> Callable[[Command], Command]:
    """Give a command the argument CONFIG and the options --set and --workdir.

    Args:
        overriding: help for --set.
        made_in_workdir: help for --workdir.
    """
    config = click.argument("config", type=click.Path())
    overrides = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help=overriding)
    folder = click.Path(file_okay=False)
    workdir = click.option("--workdir", default=".", show_default=True, type=folder, help=made_in_workdir)
    return lambda command: config(overrides(workdir(command)))
