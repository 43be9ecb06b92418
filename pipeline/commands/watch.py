"""`ingraph run --watch`: runs again when the config or the data change, each time in a fork of a warm process."""

from __future__ import annotations

import glob
import importlib
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from components.errors import BrokenInput, printable
from components.serving_check.model_process import end_ahead, hand_over, start_ahead
from pipeline.exit_status import ExitStatus
from pipeline.fingerprints import file_states, imported_files, project_files
from pipeline.history import read_run_record
from pipeline.options import RunConfig
from pipeline.run import interruptible, runs_folder
from pipeline.tasks import TASKS, schema_file
from serving.loading import garbage_collection_paused, onednn, quiet_output

if TYPE_CHECKING:
    from components.run_report.statistics import Interval

Run = Callable[[RunConfig], ExitStatus]
States = Mapping[str, tuple[int, int] | None]

# Of a look at the files; and how many times as long as a look takes there is none, where there are very many.
_SECONDS, _PAUSE = 0.3, 10
# What the steps of every run import, as do its sample prediction and its report. `{task}` is that of the config.
_IMPORTED = (
    "pipeline.dag",
    "pipeline.runners.beam_speedups",
    "pipeline.runners.local",
    "transform.{task}",
    "trainers.{task}.train",
    "serving.server.app",
    "serving.client.grpc",
    "serving.client.rest",
    "httpcore",  # which httpx imports with its first client
    "matplotlib.backends.backend_svg",
    "pipeline.reports",
)


def watch(path: str, load: Callable[[], RunConfig], run: Run, workdir: str) -> ExitStatus:
    """Run now, and again whenever a file changed, until SIGINT or SIGTERM come.

    Libraries are imported once, before the first run: they start no threads by that, so that forks are sound. What
    TensorFlow's runtime holds lives and ends with each fork.

    Args:
        path: the config file.
        load: reads it; raises BrokenInput where it cannot be used, which is said and waits for the next change.
        run: what is done with the config, in a fork.
        workdir: what relative `runs` of the config are relative to.

    Returns:
        the status of the last run, or of the last attempt to read the config.

    Raises:
        BrokenInput: there is no config file to begin with.
    """
    if not Path(path).exists():
        load()  # says so
    status = ExitStatus.UNEXPECTED
    places: list[str] = []
    with interruptible():
        try:
            while True:
                before = file_states([path])
                try:
                    config = load()
                except BrokenInput as error:
                    click.echo(str(error), err=True)
                    status = ExitStatus.BROKEN_INPUT
                    before |= _states(places)
                else:
                    places = watched_places(config)
                    before |= _states(places)
                    _import(config)
                    status = _run_in_fork(config, run, runs_folder(config, workdir))
                click.echo(f"\nwatching {path} and {len(before) - 1:,} more files; Ctrl-C ends")
                changed = _wait([path, *places], before)
                click.echo(f"changed: {', '.join(changed[:3])}{f' and {len(changed) - 3:,} more' * (len(changed) > 3)}")
                if not {str(file) for file in project_files()}.isdisjoint(changed):
                    _begin_anew()
        except KeyboardInterrupt:
            end_ahead()
            said = f" ({status.name.lower().replace('_', ' ')})" if status else ""
            click.echo(f"\nwatching has ended; the last run's exit status is {int(status)}{said}")
            return status


def watched_places(config: RunConfig) -> list[str]:
    """Local files, folders and patterns: of the config's data, its schema and models, and of this project's code."""
    data, split = config.data, getattr(config.data, "split", None)
    spans = re.sub(r"{.*?}", "*", data.spans.path) if data.spans else None
    paths = [data.path, spans, *(split.files.values() if split and split.files else ())]
    lines = [line for text in paths if text for line in text.splitlines()]
    named = [value for value in config.trainer.model_dump().values() if isinstance(value, str) and "/" in value]
    found = [*lines, *named, *filter(None, [schema_file(config)]), *map(str, project_files())]
    return list(dict.fromkeys(place for place in found if "://" not in place))


def _states(places: Sequence[str]) -> dict[str, tuple[int, int] | None]:
    """Of the files in places, patterns among them."""
    patterns = {place for place in places if glob.has_magic(place) and not Path(place).exists()}
    # Of absolute patterns pathlib makes nothing.
    files = (sorted(glob.glob(place)) if place in patterns else [place] for place in places)  # noqa: PTH207
    return file_states(file for found in files for file in found)


def _wait(places: Sequence[str], before: States) -> list[str]:
    """Wait until files are others than before, and stay as they are for a moment: what is half-written is left alone.

    Returns:
        their names.
    """
    last = before
    while True:
        started = time.monotonic()
        now = _states(places)
        if now == last != before:
            return sorted(file for file in now.keys() | before.keys() if now.get(file) != before.get(file))
        last = now
        time.sleep(max(_SECONDS, _PAUSE * (time.monotonic() - started)))


def _import(config: RunConfig) -> None:
    """Import what runs import, as they would: silently, with the switches of TensorFlow that the task wants."""
    names = [name.format(task=config.task) for name in _IMPORTED]
    if all(name in sys.modules for name in names):
        return
    click.echo("loading TFX …")
    with quiet_output(Path(os.devnull)), onednn(TASKS[config.task].uses_onednn), garbage_collection_paused():
        for name in names:
            importlib.import_module(name)
        for package in ("transform", "trainers"):
            imported_files(f"{package}.{config.task}")  # which each run's fingerprints of its code ask for


def _run_in_fork(config: RunConfig, run: Run, folder: Path) -> ExitStatus:
    """Run in a process of its own, and say there how the metrics changed; how it ended.

    Raises:
        KeyboardInterrupt: the run was to end, and has.
    """
    start_ahead()  # the serving check's process, which imports TensorFlow: the fork has its pipes
    process = multiprocessing.get_context("fork").Process(target=_run_and_compare, args=(config, run, folder))
    process.start()
    hand_over()
    try:
        process.join()
    except KeyboardInterrupt:
        process.terminate()
        process.join()
        raise
    finally:
        end_ahead()
    assert process.exitcode is not None  # it was joined
    if process.exitcode < 0:
        click.echo(f"the process of the run was ended by signal {-process.exitcode}", err=True)
        return ExitStatus.UNEXPECTED
    return ExitStatus(process.exitcode)


def _run_and_compare(config: RunConfig, run: Run, folder: Path) -> None:
    """What the fork does."""
    os.setpgid(0, 0)  # Ctrl-C goes to the process that watches, which ends this one
    earlier = _newest(folder)
    status = run(config)
    latest = _newest(folder)
    if earlier and latest != earlier:
        for line in changes(folder, earlier, latest):
            click.echo(line)
    sys.exit(status)


def _newest(folder: Path) -> str:
    """The id of the newest run with metrics that did not only repeat an earlier one; "" where there is none."""
    for path in sorted((folder / "reports").glob("*.json"), reverse=True):
        record = read_run_record(folder, path.stem)
        if record.metrics and not record.repeats:
            return path.stem
    return ""


def changes(folder: Path, earlier: str, latest: str) -> list[str]:
    """Lines for a person: options of the config and metrics that are others than in an earlier run.

    Args:
        folder: of the runs of a pipeline.
        earlier: the id of a run with metrics; likewise `latest`.
    """
    from components.run_report.pages import config_differences, metric_changes
    from pipeline.reports import read_finished_run

    before, after = read_run_record(folder, earlier), read_run_record(folder, latest)
    lines = [f"\nbeside run {earlier}:"]
    for key, old, new in config_differences(before.config, after.config):
        lines.append(printable(f"  {key}: {old or 'not given'} -> {new or 'not given'}"))
    with quiet_output(Path(os.devnull)):
        intervals = metric_changes(read_finished_run(folder, earlier), read_finished_run(folder, latest))
    for name in sorted(before.metrics.keys() | after.metrics.keys()):
        was, now = before.metrics.get(name), after.metrics.get(name)
        if was is None or now is None:
            said = "is new" if was is None else "is no longer measured"
        else:
            said = "unchanged" if was == now else f"{now - was:+.4g}{_verdict(name, intervals.get(name))}"
        lines.append(f"  {name:<14} {_number(was)} -> {_number(now)}  {said}")
    return lines


def _verdict(metric: str, change: Interval | None) -> str:
    """Whether a change is more than chance, by its confidence interval."""
    from components.evaluator.options import LOWER_IS_BETTER

    if change is None:
        return ""
    if change.low <= 0 <= change.high:
        said = "may be chance"
    else:
        said = "worse" if (change.value < 0) != (metric in LOWER_IS_BETTER) else "better"
    return f" ({change.low:+.4g} to {change.high:+.4g}: {said})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _begin_anew() -> None:
    """Be the same command with the code as it is now: what is imported is not."""
    click.echo("the code of ingraph itself has changed, and is loaded anew")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
