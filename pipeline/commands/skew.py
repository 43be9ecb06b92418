"""`ingraph skew`."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.commands.run import config_options
from pipeline.exit_status import ExitStatus
from serving.loading import garbage_collection_paused

if TYPE_CHECKING:
    from pipeline.skew.compare import SkewCheck


@click.command(
    epilog="""Exit status: 0 no column is skewed; 3 one is; 2 there are too few requests to tell, no requests to this
    model, or the config, the logs or the training data cannot be used; 1 anything unexpected."""
)
@config_options("Override a key: skew.maximum_of.age=0.5.", "Where `ingraph run` made runs/ and models/.")
@click.option(
    "--logs",
    multiple=True,
    required=True,
    metavar="PLACE",
    help="A request log, a folder of them or a pattern such as 'logs/heart-*'; may be given several times.",
)
def skew(config: str, overrides: tuple[str, ...], workdir: str, logs: tuple[str, ...]) -> None:
    """Compare what the served model is asked with what it learned from.

    Logs are files of TensorFlow Serving's PredictionLogs, as `ingraph serve --request-log` writes them. The
    distribution of each column of the requests is held against that of the training data of the served version.

    \b
    ingraph serve --model heart=models/heart --request-log logs/heart
    ingraph skew configs/heart.yaml --logs 'logs/heart-*'
    """
    from components.errors import BrokenInput
    from pipeline.config import load_config
    from serving.loading import quiet_output

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        loaded = load_config(config, overrides)
        with quiet_output(Path(os.devnull)), garbage_collection_paused():
            from pipeline.skew.compare import check_skew
        with quiet_output(Path(os.devnull)):
            check = check_skew(loaded, workdir, logs)
    except BrokenInput as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(ExitStatus.BROKEN_INPUT)
    _print(check)
    sys.exit(_status(check))


def _status(check: SkewCheck) -> ExitStatus:
    from pipeline.skew.compare import SkewVerdict

    verdicts = {column.verdict for column in check.columns}
    if SkewVerdict.SKEWED in verdicts:
        return ExitStatus.ANOMALIES
    return ExitStatus.BROKEN_INPUT if SkewVerdict.UNDECIDED in verdicts else ExitStatus.PUBLISHED


def _print(check: SkewCheck) -> None:
    from pipeline.skew.compare import SkewVerdict

    logged, run = check.logged, check.training
    asked = f"{_counted(check.rows, 'row')} of {_counted(logged.requests, 'request')}"
    _line("requests", f"{asked} in {_counted(check.files, 'log')}{_times(check)}")
    _line("training", f"{check.training_rows:,} rows of version {run.version.number} in {run.base_path}")
    for left_out in _left_out(check):
        _line("left out", left_out)
    click.echo()
    for column in check.columns:
        _line(column.column, column.finding)
    click.echo()
    skewed = [column.column for column in check.columns if column.verdict is SkewVerdict.SKEWED]
    undecided = [column.column for column in check.columns if column.verdict is SkewVerdict.UNDECIDED]
    if skewed:
        _line("skewed", f"{len(skewed)} of {len(check.columns)} columns: {', '.join(skewed)}")
    if undecided:
        _line("too few", f"rows to tell of {', '.join(undecided)}: log more requests, or widen skew.maximum_of")
    if not skewed and not undecided:
        _line("no skew", f"in any of {len(check.columns)} columns")


def _line(what: str, said: str) -> None:
    click.echo(f"{what:<10} {said}")


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + "s" * (count != 1)


def _times(check: SkewCheck) -> str:
    if check.logged.seconds is None:
        return ""
    first, last = (f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}" for seconds in check.logged.seconds)
    return f", {first} to {last} UTC"


def _left_out(check: SkewCheck) -> list[str]:
    logged = check.logged
    found = logged.passed_over()
    if logged.other_inputs:
        found.append(
            f"{_counted(logged.other_inputs.total(), 'request')} without an input of the training data, to the "
            f"signatures {', '.join(logged.other_inputs)}"
        )
    return found
