"""`ingraph run`."""

from __future__ import annotations

import sys

import click

from pipeline.commands.config_options import config_options
from pipeline.exit_status import ExitStatus


@click.command(
    epilog="""Exit status: 0 a version was published, or the published one is already of this run; 2 the config or the
    data cannot be used; 3 the data contradicts its schema; 4 a metric missed its threshold; 5 the model does not serve
    what was trained; 6 the model base path did not take it; 1 anything unexpected."""
)
@config_options("Override a key: trainer.epochs=10.")
def run(config: str, overrides: tuple[str, ...], workdir: str) -> None:
    """Train, check and publish the model that CONFIG describes.

    CONFIG is a YAML file; configs/ holds examples. Runs and their metadata go to runs/NAME, published models to
    models/NAME, the base path to give to TensorFlow Serving. What has not changed since the last run is not run again.

    \b
    ingraph run configs/heart.yaml
    ingraph run configs/heart.yaml --set trainer.epochs=50 --workdir /tmp/try
    """
    from components.errors import BrokenInput
    from pipeline.config import load_config
    from pipeline.run import run as run_config

    try:
        loaded = load_config(config, overrides)
    except BrokenInput as error:
        click.echo(str(error), err=True)
        sys.exit(ExitStatus.BROKEN_INPUT)
    sys.exit(run_config(loaded, workdir))
