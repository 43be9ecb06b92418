"""`ingraph tune`."""

from __future__ import annotations

import sys

import click

from pipeline.commands.config_options import config_options
from pipeline.exit_status import ExitStatus


@click.command(
    epilog="""Exit status: 0 values were found; 2 the config or the data cannot be used, or no trial came to an end; 3
    the data contradicts its schema; 9 another process runs the same pipeline; 1 anything unexpected."""
)
@config_options("Override a key: tuner.trials=30.")
def tune(config: str, overrides: tuple[str, ...], workdir: str) -> None:
    """Search for the trainer's options that suit the data best; nothing is published.

    CONFIG is a YAML file with `tuner`. Shows the trials, and the best values as YAML for the config; `ingraph run` with
    the same config trains with them. A search that was interrupted goes on.

    \b
    ingraph tune heart.yaml
    ingraph tune heart.yaml --set tuner.trials=30 --set tuner.method=bayesian
    """
    from components.errors import BrokenInput
    from pipeline.config import load_config
    from pipeline.tune import tune as tune_config

    try:
        status = tune_config(load_config(config, overrides), workdir)
    except BrokenInput as error:
        click.echo(str(error), err=True)
        sys.exit(ExitStatus.BROKEN_INPUT)
    sys.exit(status)
