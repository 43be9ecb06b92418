"""`ingraph report`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from pipeline.commands.runs import runs_folder
from pipeline.exit_status import ExitStatus


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
    from pipeline.run import quiet_output

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
