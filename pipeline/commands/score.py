"""`ingraph score`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.exit_status import ExitStatus
from serving.loading import garbage_collection_paused

if TYPE_CHECKING:
    from pipeline.scoring.inputs import PublishedModel
    from pipeline.scoring.pipeline import Scores

CONFIG_SUFFIXES = (".yaml", ".yml")


@click.command(
    epilog="""Exit status: 0 the scores are written, and no more is bad than --max-bad-share; 2 more is bad, the scores
    of the others are written; 2 too where the config, the model, an input or the output cannot be used, and nothing is
    written; 1 anything unexpected."""
)
@click.argument("model", metavar="CONFIG|BASE_PATH")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    required=True,
    metavar="PLACE",
    help="A file, a folder or a pattern such as 'new/*.csv'; may be given several times.",
)
@click.option("--output", required=True, help="The file to write, .jsonl, .csv or .parquet.")
@click.option("--version", type=click.IntRange(min=0), help="The version that scores.  [default: the served one]")
@click.option(
    "--max-bad-share",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="How much of the input may be bad before the command fails.",
)
@click.option("--workdir", default=".", show_default=True, help="Where `ingraph run` made models/, for a CONFIG.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of CONFIG.")
def score(
    model: str,
    inputs: tuple[str, ...],
    output: str,
    version: int | None,
    max_bad_share: float,
    workdir: str,
    overrides: tuple[str, ...],
) -> None:
    """Write the labels that a published model gives to all rows or photos of files.

    Tables and texts come as CSV, TSV, JSON lines or Parquet, texts also with one on each line of a .txt; photos as
    files, folders, or a table with their paths in the column path. Places may be an object store's. What cannot be
    scored goes to OUTPUT's name with .errors.jsonl as its ending, with the reason.

    \b
    ingraph score models/heart --input new/*.csv --output scores.csv
    ingraph score configs/heart.yaml --input gs://clinic/new --output gs://clinic/scores.parquet
    """
    from components.errors import BrokenInput
    from serving.loading import quiet_output

    started = time.monotonic()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with quiet_output(Path(os.devnull)):
            used, scores = _score(model, inputs, output, version, workdir, overrides)
    except BrokenInput as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(ExitStatus.BROKEN_INPUT)
    _print(used, scores, time.monotonic() - started)
    if scores.bad_share > max_bad_share:
        click.echo(f"Error: {scores.bad_share:.2%} is bad, more than --max-bad-share {max_bad_share:.2%}", err=True)
        sys.exit(ExitStatus.BROKEN_INPUT)


def _score(
    model: str, inputs: tuple[str, ...], output: str, version: int | None, workdir: str, overrides: tuple[str, ...]
) -> tuple[PublishedModel, Scores]:
    with garbage_collection_paused():
        from components.errors import BrokenInput
        from pipeline.config import load_config
        from pipeline.options import TableRunConfig
        from pipeline.run import model_base_path
        from pipeline.runners.beam_engine import BeamOptions
        from pipeline.scoring.inputs import find_model
        from pipeline.scoring.pipeline import check_output
        from pipeline.scoring.pipeline import score as score_files

    check_output(output)
    if not model.endswith(CONFIG_SUFFIXES):
        if overrides:
            raise BrokenInput(f"--set {overrides[0]}: {model} is a base path; only a config has keys to override")
        used = find_model(model.rstrip("/"), version)
        return used, score_files(used, inputs, output, BeamOptions())
    config = load_config(model, overrides)
    used = find_model(model_base_path(config, workdir), version)
    return used, score_files(
        used,
        inputs,
        output,
        config.beam,
        config.cluster.image,
        config.preprocessing.renamed_inputs(),
        config.ingestion().reading if isinstance(config, TableRunConfig) else None,
    )


def _print(model: PublishedModel, scores: Scores, seconds: float) -> None:
    origin = f" ({model.origin})" if model.origin else ""
    click.echo(
        f"scored     {scores.scored:,} with version {model.number} of {model.base_path}{origin}, {seconds:.1f} s"
    )
    click.echo(f"output     {', '.join(scores.files)}")
    if scores.bad:
        click.echo(f"bad        {scores.bad:,}: {', '.join(scores.bad_files)}; the first: {scores.first_bad}")
