"""`ingraph replay`."""

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
    from components.evaluator.options import ReplayOptions
    from components.replay_gate.replay import Change, Replay
    from pipeline.options import RunConfig
    from serving.model_store import ModelVersion

SHOWN = 10


@click.command(
    epilog="""Exit status: 0 every bound holds; 12 one does not, and is named; 2 the config, the logs or a model cannot
    be used; 1 anything unexpected."""
)
@config_options("Override a key: evaluation.replay.may_flip=0.01.", "Where `ingraph run` made runs/ and models/.")
@click.option(
    "--logs",
    multiple=True,
    metavar="PLACE",
    help="A request log, a folder of them or a pattern such as 'logs/heart-*'; may be given several times.  "
    "[default: evaluation.replay.logs]",
)
@click.option(
    "--candidate",
    metavar="VERSION|DIR",
    help="A published version's number, or the directory of a SavedModel.  [default: the model of the latest run]",
)
@click.option("--against", type=click.IntRange(min=0), help="A published version.  [default: the served one]")
def replay(
    config: str,
    overrides: tuple[str, ...],
    workdir: str,
    logs: tuple[str, ...],
    candidate: str | None,
    against: int | None,
) -> None:
    """Ask a new model what the served one was asked, and say which labels change.

    Logs are files of TensorFlow Serving's PredictionLogs, as `ingraph serve --request-log` writes them. Both models
    answer each request; bounds and slices are those of the config's `evaluation`.

    \b
    ingraph replay configs/heart.yaml --logs 'logs/heart-*'
    ingraph replay configs/heart.yaml --logs logs/ --candidate 3 --against 2
    """
    from components.errors import BrokenInput
    from pipeline.config import load_config
    from serving.loading import quiet_output

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        loaded = load_config(config, overrides)
        with quiet_output(Path(os.devnull)), garbage_collection_paused():
            from components.evaluator.options import ReplayOptions
            from components.replay_gate.replay import beyond, replay_requests
            from components.request_logs import find_logs
        given = loaded.evaluation.replay
        if not logs and given is None:
            raise BrokenInput("--logs is missing, and the config has no evaluation.replay; say where the logs are")
        options = given or ReplayOptions(logs=logs)
        places = logs or options.logs
        with quiet_output(Path(os.devnull)):
            served = _published(loaded, workdir, against)
            path = _candidate(loaded, workdir, candidate)
            found = replay_requests(
                find_logs(places),
                loaded.name,
                served.path,
                path,
                [one.columns for one in loaded.evaluation.slices],
                loaded.preprocessing.renamed_inputs(),
                options.maximum_rows,
            )
        reasons = beyond(found, options.model_copy(update={"logs": tuple(places)}))
    except BrokenInput as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(ExitStatus.BROKEN_INPUT)
    _print(found, options, served, path)
    for reason in reasons:
        _line("beyond", reason)
    if not found.whole.rows:
        sys.exit(ExitStatus.BROKEN_INPUT)
    if not reasons:
        _line("fine", f"at most {options.may_flip:.2%} of all rows and of each slice may change, and no more does")
    sys.exit(ExitStatus.ANSWERS_CHANGED if reasons else ExitStatus.PUBLISHED)


def _published(config: RunConfig, workdir: str, number: int | None) -> ModelVersion:
    from components.errors import BrokenInput
    from pipeline.run import model_base_path
    from serving.model_store import ModelStoreError, list_versions, served_version

    base_path = model_base_path(config, workdir)
    try:
        if number is None:
            version = served_version(base_path)
        else:
            version = next((one for one in list_versions(base_path) if one.number == number), None)
    except ModelStoreError as error:
        raise BrokenInput(str(error)) from error
    if version is None:
        named = "no published version" if number is None else f"no version {number}"
        raise BrokenInput(f"{base_path}: {named} there; `ingraph models list {base_path}` lists what there is")
    return version


def _candidate(config: RunConfig, workdir: str, given: str | None) -> str:
    from tfx.dsl.io import fileio
    from tfx.utils import path_utils

    from components.errors import BrokenInput
    from pipeline.history import METADATA, open_metadata_store, read_recorded_run, run_ids

    if given is not None:
        if given.isdecimal():
            return _published(config, workdir, int(given)).path
        if not any(fileio.exists(f"{given.rstrip('/')}/saved_model.{ending}") for ending in ("pb", "pbtxt")):
            raise BrokenInput(
                f"--candidate {given}: no SavedModel lies there; expected the number of a published version, or a "
                "directory that holds saved_model.pb"
            )
        return given
    folder = Path(workdir, config.runs, config.name).resolve()
    if (folder / METADATA).exists():
        store = open_metadata_store(str(folder / METADATA))
        for run_id in run_ids(folder):
            model = read_recorded_run(store, run_id).artifacts.get("model")
            if model is not None and Path(model.uri).exists():
                return str(path_utils.serving_model_path(model.uri))
    raise BrokenInput(f"{folder}: no run there has made a model; name one: --candidate VERSION or --candidate DIR")


def _print(found: Replay, options: ReplayOptions, served: ModelVersion, candidate: str) -> None:
    whole = found.whole
    times = ""
    if found.seconds:
        first, last = (f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}" for seconds in found.seconds)
        times = f", {first} to {last} UTC"
    asked = ", ".join(f"{name} {rows:,}" for name, rows in found.signatures.items())
    _line("requests", f"{found.requests:,} with {whole.rows:,} rows{times}: {asked or 'none'}")
    _line("served", f"version {served.number}, {served.path}")
    _line("candidate", candidate)
    for one in found.left_out:
        _line("left out", one)
    if found.other_labels:
        _line("labels", found.other_labels)
    if not whole.rows:
        return
    low, high = whole.interval()
    _line(
        "changed",
        f"{whole.changed:,} rows, {whole.changed / whole.rows:.2%} ({low:.2%} to {high:.2%}); {found.failing:,} fail "
        f"with both, {found.newly_answered:,} no more",
    )
    for change in found.labels[:SHOWN]:
        _change(change, f"{change.before} -> {change.after}", whole.rows)
    for change in found.newly_failing[:SHOWN]:
        _change(change, f"newly fails: {change.after}", whole.rows)
    for part in [part for part in found.slices if part.changed][:SHOWN]:
        low, high = part.interval()
        share = f"{part.changed / part.rows:.2%} ({low:.2%} to {high:.2%})"
        _line("slice", f"{part.name}: {part.changed:,} of {part.rows:,}, {share}")
    if found.latency:
        served_side, other = found.latency.served, found.latency.candidate
        ratio, low, high = found.latency.ratio
        sides = (
            f"served {served_side.p50:.2f} ms, 99th percentile {served_side.p99:.2f}; "
            f"candidate {other.p50:.2f} ms, {other.p99:.2f}"
        )
        of = f"of {found.latency.requests:,} requests"
        _line("latency", f"{sides}: {ratio:.2f} times ({low:.2f} to {high:.2f}), {of}")


def _change(change: Change, what: str, rows: int) -> None:
    from trainers.roc import wilson_interval

    low, high = wilson_interval(change.rows / rows, rows, 0.95)
    _line("", f"{change.rows:,} {what} ({low:.2%} to {high:.2%} of all rows)")
    for example in change.examples:
        _line("", "    " + " ".join(f"{name}={value}" for name, value in example.items()))


def _line(what: str, said: str) -> None:
    from components.errors import printable

    click.echo(printable(f"{what:<10} {said}"))
