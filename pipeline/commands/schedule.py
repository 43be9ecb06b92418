"""`ingraph schedule`: when models are trained anew, and by what."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.exit_status import status_of_error

if TYPE_CHECKING:
    from pipeline.schedules.targets import ScheduleRequest, ScheduleTarget, Target

# Each target as module:name, imported when it is used.
_TARGETS = {
    "local": "pipeline.schedules.daemon:LOCAL",
    "crontab": "pipeline.schedules.units:CRONTAB",
    "systemd": "pipeline.schedules.units:SYSTEMD",
    "kubeflow": "pipeline.schedules.cluster:KUBEFLOW",
    "vertex": "pipeline.schedules.cluster:VERTEX",
    "airflow": "pipeline.schedules.airflow:AIRFLOW",
}
# They run the compiled pipeline, the others `ingraph retrain`.
_CLUSTERS = ("kubeflow", "vertex")
_NEXT_RUNS = 3


@click.group()
def schedule() -> None:
    """Train models anew as the `schedule` of their configs says.

    On this machine by a daemon, by cron or by systemd; elsewhere by Kubeflow Pipelines, Vertex AI or Airflow. What a
    target does otherwise than the config says, show and apply name.

    \b
    Examples:
      ingraph schedule run sales.yaml
      ingraph schedule show sales.yaml --target crontab
      ingraph schedule apply sales.yaml --target systemd
      ingraph schedule remove sales.yaml --target systemd
    """


_OVERRIDES = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key, also in the runs."
)
_WORKDIR = click.option(
    "--workdir", default=".", show_default=True, type=click.Path(file_okay=False), help="Where the runs' runs/ is made."
)


def _target_options(command: Callable[..., None]) -> Callable[..., None]:
    folder = click.option(
        "--folder",
        type=click.Path(file_okay=False),
        help="Where files go: units of systemd, by default the user's; Airflow's dags folder.",
    )
    target = click.option("--target", required=True, type=click.Choice(list(_TARGETS)), help="What starts the runs.")
    return click.argument("config", type=click.Path())(target(folder(_OVERRIDES(_WORKDIR(command)))))


@schedule.command(epilog="Exit status: 0; 2 the config cannot be used, or the target cannot keep such a schedule.")
@_target_options
def show(target: Target, **given: Any) -> None:
    """Print what `apply` would hand over, and when the next runs are due; nothing is changed."""
    with _request(target, given) as (schedule_target, request):
        click.echo(schedule_target.show(request))
        _echo_next_runs(request)


@schedule.command(
    epilog="""Exit status: 0 the schedule holds; 2 the config cannot be used, or the target cannot keep such a schedule;
    7 the cluster could not be reached, or did not take it."""
)
@_target_options
def apply(target: Target, **given: Any) -> None:
    """Hand the schedule of CONFIG over, in place of the one that is there for the same model."""
    with _request(target, given) as (schedule_target, request):
        click.echo(schedule_target.apply(request))
        _echo_next_runs(request)


@schedule.command(
    epilog="Exit status: 0 it is gone; 2 the config cannot be used; 7 the cluster could not be reached, or refused."
)
@_target_options
def remove(target: Target, **given: Any) -> None:
    """Take the schedule of CONFIG away; a run that goes on is left alone."""
    with _request(target, given) as (schedule_target, request):
        click.echo(schedule_target.remove(request))


@schedule.command(
    epilog="""Exit status: 0 it was told to end; 2 a config cannot be used; 9 another daemon keeps one of the
    schedules."""
)
@click.argument("configs", nargs=-1, required=True, type=click.Path())
@_OVERRIDES
@_WORKDIR
def run(configs: tuple[str, ...], overrides: tuple[str, ...], workdir: str) -> None:
    """Keep the schedules of CONFIGS on this machine: `ingraph retrain` is started whenever one is due.

    Says a line for each run, with its exit status; runs/NAME/schedule/schedule.log keeps them. SIGTERM or Ctrl-C ends
    it: a run that goes on is waited for, a second signal ends that too. Started again, it knows what was missed.
    """
    from pipeline.config import load_config
    from pipeline.schedules.daemon import local_schedule, run_daemon
    from pipeline.schedules.targets import require_spans, scheduled_command

    with _exit_status_of_errors():
        loaded = [(load_config(path, overrides), path) for path in configs]
        for config, path in loaded:
            require_spans(config, path)
        commands = [scheduled_command(config, path, overrides, workdir) for config, path in loaded]
        journals = [Path(workdir, config.runs, config.name, "schedule") for config, _ in loaded]
        run_daemon([local_schedule(*pair) for pair in zip(commands, journals, strict=True)])


@contextmanager
def _exit_status_of_errors() -> Iterator[None]:
    from components.errors import RunStopped

    try:
        yield
    except RunStopped as stopped:
        click.echo(str(stopped), err=True)
        sys.exit(status_of_error(stopped))


@contextmanager
def _request(target: Target, given: dict[str, Any]) -> Iterator[tuple[ScheduleTarget, ScheduleRequest]]:
    from pipeline.config import load_config
    from pipeline.schedules.targets import ScheduleRequest, require_spans, scheduled_command, unsupported_options

    path, overrides, folder = given["config"], given["overrides"], given["folder"]
    with _exit_status_of_errors():
        config = load_config(path, overrides)
        scheduled = scheduled_command(config, path, overrides, given["workdir"])
        if target not in _CLUSTERS:
            require_spans(config, path)
        for sentence in unsupported_options(config.schedule, target):
            click.echo(f"note: {sentence}", err=True)
        request = ScheduleRequest(config, path, scheduled, Path(folder) if folder else None)
        yield pkgutil.resolve_name(_TARGETS[target]), request


def _echo_next_runs(request: ScheduleRequest) -> None:
    from pipeline.schedules.daemon import next_due

    options = request.config.schedule
    times: list[datetime] = []
    while len(times) < _NEXT_RUNS and (time := next_due(options, times[-1] if times else datetime.now(UTC))):
        times.append(time)
    shown = ", ".join(f"{time.astimezone(options.zone):%a %Y-%m-%d %H:%M %Z}" for time in times)
    click.echo(f"due {shown}" if shown else "no run is due any more", err=True)
