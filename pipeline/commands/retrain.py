"""`ingraph retrain`."""

from __future__ import annotations

import sys

import click

from pipeline.commands.config_options import config_options
from pipeline.exit_status import ExitStatus


@click.command(
    epilog="""Exit status: 0 a version was published; 8 there are no new data, and nothing ran; 9 another process runs
    the same pipeline; 3 the data contradicts its schema, or drifted; 10 clients of the served model could not use the
    new one; 2 the config or the data cannot be used; 4 a metric missed its threshold; 5 the model does not serve what
    was trained; 6 the model base path did not take it; 1 anything unexpected."""
)
@config_options("Override a key: data.spans.window=14.")
def retrain(config: str, overrides: tuple[str, ...], workdir: str) -> None:
    """Train on the newest spans, check and publish, if data came since the last published version.

    CONFIG is a YAML file with data.spans. What is served stays as it is unless every gate lets the new model pass.

    \b
    ingraph retrain sales.yaml
    ingraph retrain sales.yaml --set data.spans.maximum_drift_of.price=0.4
    """
    from components.errors import BrokenInput
    from pipeline.config import load_config
    from pipeline.retrain import retrain as retrain_config

    try:
        status = retrain_config(load_config(config, overrides), workdir)
    except BrokenInput as error:
        click.echo(str(error), err=True)
        sys.exit(ExitStatus.BROKEN_INPUT)
    sys.exit(status)
