"""`ingraph runs` and `ingraph report`: what ran, what became of it, and the report of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from pipeline.exit_status import ExitStatus

if TYPE_CHECKING:
    from pipeline.history import PastRun

SHOWN_METRICS = ("accuracy", "auc", "cross_entropy")


def runs_folder(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that say where runs lie."""
    workdir = click.option("--workdir", default=".", show_default=True, help="Where `ingraph run` made its folders.")
    runs = click.option("--runs", default="runs", show_default=True, help="The folder of runs, `runs` in the config.")
    return workdir(runs(command))


@click.group()
def runs() -> None:
    """List past runs, or show one: its metrics, its verdict, its version, and where its report is.

    \b
    Examples:
      ingraph runs list
      ingraph runs show heart
      ingraph runs repair
    """


@runs.command("list")
@click.argument("name", required=False)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1), help="The newest runs only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON with everything known about each run.")
@runs_folder
def list_command(name: str | None, limit: int, as_json: bool, workdir: str, runs: str) -> None:
    """Show past runs, of all pipelines or of the pipeline NAME, the newest first."""
    from components.errors import BrokenInput
    from pipeline.history import pipeline_folders, read_past_run, run_ids
    from serving.loading import quiet_output

    troubles, found = [], []
    with quiet_output(Path(os.devnull)):
        for folder in pipeline_folders(Path(workdir, runs)):
            if name not in (None, folder.name):
                continue
            try:
                found += [(run_id, folder) for run_id in run_ids(folder)]
            except BrokenInput as error:  # the others are listed all the same
                troubles.append(str(error))
        past = [read_past_run(folder, run_id) for run_id, folder in sorted(found, reverse=True)[:limit]]
    if as_json:
        click.echo(orjson.dumps([asdict(run) for run in past], option=orjson.OPT_INDENT_2))
    elif past:
        _print_table(past)
    elif not troubles:
        click.echo(f"No runs{f' of {name}' if name else ''} in {Path(workdir, runs)}.")
    for trouble in troubles:
        click.echo(trouble, err=True)
    if troubles:
        sys.exit(ExitStatus.BROKEN_INPUT)


@runs.command()
@click.argument("name", required=False)
@runs_folder
def repair(name: str | None, workdir: str, runs: str) -> None:
    """Set damaged metadata of runs aside, of all pipelines or of the pipeline NAME, and begin new ones.

    The damaged file stays beside the new one, which knows the runs of which there are records in the run folder, with
    their verdicts and metrics; the next run does all its steps. Metadata that can be read stay as they are.
    """
    from components.errors import BrokenInput, RunUnderWay
    from pipeline.history import check_metadata, pipeline_folders, repair_metadata
    from pipeline.run import run_lock
    from serving.loading import quiet_output

    folders = [folder for folder in pipeline_folders(Path(workdir, runs)) if name in (None, folder.name)]
    if not folders:
        click.echo(f"{Path(workdir, runs)}: no pipeline{f' {name}' if name else ''} has run here", err=True)
        sys.exit(ExitStatus.BROKEN_INPUT)
    for folder in folders:
        try:
            with run_lock(folder):
                try:
                    check_metadata(folder)
                    click.echo(f"{folder.name}: the metadata are fine")
                except BrokenInput:
                    with quiet_output(Path(os.devnull)):
                        aside, known = repair_metadata(folder)
                    click.echo(f"{folder.name}: the damaged metadata are {aside}; {len(known)} runs are known again")
        except RunUnderWay as error:
            click.echo(str(error), err=True)
            sys.exit(ExitStatus.UNDER_WAY)


@runs.command()
@click.argument("run", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@runs_folder
def show(run: str | None, as_json: bool, workdir: str, runs: str) -> None:
    """Show one run with its steps.

    RUN is the name of a pipeline (its latest run), the id of a run, or its beginning; by default the latest run of all.
    """
    from components.errors import BrokenInput, printable
    from pipeline.history import find_run, read_past_run
    from serving.loading import quiet_output

    try:
        with quiet_output(Path(os.devnull)):
            folder, run_id = find_run(Path(workdir, runs), run)
            past = read_past_run(folder, run_id)
    except BrokenInput as error:
        click.echo(str(error), err=True)
        sys.exit(ExitStatus.BROKEN_INPUT)
    if as_json:
        click.echo(orjson.dumps(asdict(past), option=orjson.OPT_INDENT_2))
        return
    click.echo(f"{past.name}: run {past.run_id}")
    for step in past.steps:
        took = f"{step.seconds:6.1f} s" if step.seconds is not None else step.state
        click.echo(f"  {step.name:<18}{took}")
    click.echo(f"verdict    {past.verdict}{f': {printable(past.reason)}' if past.reason else ''}")
    click.echo(f"metrics    {_metrics(past) or 'none'}")
    click.echo(f"version    {past.version or 'none'}")
    click.echo(f"report     {past.report or f'not made; `ingraph report {past.run_id}` makes it'}")
    click.echo(f"log        {past.log or 'none'}")


def _print_table(past: Sequence[PastRun]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from components.errors import display_path, printable

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("pipeline", "run", "verdict", "version", "metrics", "report"):
        table.add_column(heading, overflow="fold")
    for run in past:
        cells = (run.name, run.run_id, run.verdict, run.version, _metrics(run), display_path(run.report))
        table.add_row(*(Text(printable(cell)) for cell in cells))
    # A pipe has no width; lines must stay whole there.
    Console(width=None if sys.stdout.isatty() else 400, highlight=False).print(table)


def _metrics(run: PastRun) -> str:
    return ", ".join(f"{name} {run.metrics[name]:.4f}" for name in SHOWN_METRICS if name in run.metrics)


@click.command()
@click.argument("run", required=False)
@click.argument("other", required=False)
@click.option("--open", "open_page", is_flag=True, help="Show the page in the browser.")
@runs_folder
def report(run: str | None, other: str | None, open_page: bool, workdir: str, runs: str) -> None:
    """Make the report of RUN anew from its artifacts, or compare RUN with OTHER, and say where the page is.

    A run is the name of a pipeline (its latest run), the id of a run, or its beginning; by default the latest of all.
    The page is one file that needs no network, no server and no script. It shows examples of the data as they are.

    \b
    Examples:
      ingraph report
      ingraph report heart --open
      ingraph report 20260131-1200 20260201-1200
    """
    from components.errors import BrokenInput
    from pipeline.history import find_run
    from serving.loading import quiet_output

    try:
        with quiet_output(Path(os.devnull)):
            from pipeline.reports import write_comparison, write_report

            folder, run_id = find_run(Path(workdir, runs), run)
            if other is None:
                page = write_report(folder, run_id)
            else:
                page = write_comparison((folder, run_id), find_run(Path(workdir, runs), other))
    except BrokenInput as error:
        click.echo(str(error), err=True)
        sys.exit(ExitStatus.BROKEN_INPUT)
    except OSError as error:
        place = error.filename or Path(workdir, runs)
        click.echo(
            f"{place}: the report cannot be written: {error.strerror or error}; make the folder writable", err=True
        )
        sys.exit(ExitStatus.BROKEN_INPUT)
    click.echo(str(page))
    if open_page:
        click.launch(page.resolve().as_uri())
