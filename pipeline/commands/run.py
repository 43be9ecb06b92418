"""`ingraph run`, `ingraph retrain` and `ingraph tune`, and the options of every command that takes a config."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from pipeline.exit_status import ExitStatus

if TYPE_CHECKING:
    from pipeline.options import RunConfig

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


@click.command(
    epilog="""Exit status: 0 a version was published, or the published one is already of this run; 2 the config or the
    data cannot be used; 3 the data contradicts its schema; 4 a metric missed its threshold; 5 the model does not serve
    what was trained; 12 it answers logged requests too differently; 6 the model base path did not take it; 1 anything
    unexpected."""
)
@config_options("Override a key: trainer.epochs=10.")
@click.option("--convert", is_flag=True, help="Make JPEGs of HEIC, WebP, AVIF and TIFF photos beside them, once.")
@click.option("--watch", is_flag=True, help="Stay, and run again whenever the config or the data change.")
@click.option("--quick", is_flag=True, help="Few examples and epochs: find mistakes in seconds, and publish nothing.")
def run(config: str, overrides: tuple[str, ...], workdir: str, convert: bool, watch: bool, quick: bool) -> None:
    """Train, check and publish the model that CONFIG describes.

    CONFIG is a YAML file; configs/ holds examples. Runs and their metadata go to runs/NAME, published models to
    models/NAME, the base path to give to TensorFlow Serving. What has not changed since the last run is not run again.

    \b
    ingraph run configs/heart.yaml
    ingraph run configs/heart.yaml --set trainer.epochs=50 --workdir /tmp/try
    ingraph run configs/heart.yaml --quick --watch
    """
    from components.errors import BrokenInput
    from pipeline.config import load_config, quick_config
    from pipeline.run import quick as quick_run
    from pipeline.run import run as run_config

    def load() -> RunConfig:
        loaded = load_config(config, overrides)
        return quick_config(loaded) if quick else loaded

    start = partial(quick_run if quick else run_config, workdir=workdir, convert=convert)
    try:
        if watch:
            from pipeline.commands.watch import watch as watch_config

            sys.exit(watch_config(config, load, start, workdir))
        loaded = load()
    except BrokenInput as error:
        click.echo(str(error), err=True)
        sys.exit(ExitStatus.BROKEN_INPUT)
    sys.exit(start(loaded))


@click.command(
    epilog="""Exit status: 0 a version was published; 8 there are no new data, and nothing ran; 9 another process runs
    the same pipeline; 3 the data contradicts its schema, or drifted; 10 clients of the served model could not use the
    new one; 12 it answers logged requests too differently; 2 the config or the data cannot be used; 4 a metric missed
    its threshold; 5 the model does not serve what was trained; 6 the model base path did not take it; 1 anything
    unexpected."""
)
@config_options("Override a key: data.spans.window=14.")
def retrain(config: str, overrides: tuple[str, ...], workdir: str) -> None:
    """Train on the newest spans, check and publish, if data came since the last published version.

    CONFIG is a YAML file with data.spans. What is served stays as it is unless every gate lets the new model pass. With
    evaluation.truth.when_below, it first looks how good the served model was in the field.

    \b
    ingraph retrain sales.yaml
    ingraph retrain sales.yaml --set data.spans.maximum_drift_of.price=0.4
    """
    from components.errors import BrokenInput
    from pipeline.config import load_config
    from pipeline.run import retrain as retrain_config

    try:
        loaded = load_config(config, overrides)
        if loaded.evaluation.truth is not None and loaded.evaluation.truth.when_below is not None:
            from pipeline.scoring.truth import retrains

            wanted, said = retrains(loaded, workdir)
            click.echo(f"truth: {said}")
            if not wanted:
                sys.exit(ExitStatus.NO_NEW_DATA)
        status = retrain_config(loaded, workdir)
    except BrokenInput as error:
        click.echo(str(error), err=True)
        sys.exit(ExitStatus.BROKEN_INPUT)
    sys.exit(status)


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
    from pipeline.run import tune as tune_config

    try:
        status = tune_config(load_config(config, overrides), workdir)
    except BrokenInput as error:
        click.echo(str(error), err=True)
        sys.exit(ExitStatus.BROKEN_INPUT)
    sys.exit(status)
