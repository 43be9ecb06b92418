"""An Airflow DAG: a file for its dags folder that runs `ingraph retrain` at the times of a schedule."""

from __future__ import annotations

import shlex
import string
from datetime import UTC, datetime, timedelta
from pathlib import Path

from components.errors import BrokenInput
from pipeline.exit_status import ExitStatus
from pipeline.schedules.targets import (
    ScheduledCommand,
    ScheduleRequest,
    ScheduleTarget,
    remove_schedule_files,
    write_schedule_files,
)

_DAG_FILE = '''\
"""Trains {name} anew. Written by `ingraph schedule`; imports nothing of ingraph."""

from datetime import datetime
from zoneinfo import ZoneInfo

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG
from airflow.timetables.trigger import CronTriggerTimetable

ZONE = ZoneInfo({zone!r})

with DAG(
    dag_id={dag_id!r},
    description={description!r},
    schedule=CronTriggerTimetable({cron!r}, timezone={zone!r}),
    start_date={start},
    end_date={end},
    catchup={catchup!r},
    max_active_runs={max_active_runs!r},
    tags=["ingraph"],
):
    BashOperator(
        task_id="retrain",
        bash_command={command!r},
        cwd={workdir!r},
        append_env=True,
        # No new data, and another run under way.
        skip_on_exit_code={skip_statuses!r},
    )
'''


def airflow_dag(scheduled: ScheduledCommand, now: datetime) -> str:
    """The text of a file for Airflow's dags folder; for Airflow 3.

    Runs are started at the times of the cron expression (a CronTriggerTimetable), not an interval later. To skip, a
    second run may start, which `ingraph retrain` ends at once; to queue, Airflow starts none before the one has ended.

    https://airflow.apache.org/docs/apache-airflow/stable/authoring-and-scheduling/timetable.html

    Args:
        scheduled: what to start, and when.
        now: what comes before is never caught up on.
    """
    options = scheduled.options
    skips = options.overlap == "skip" and options.catch_up != "all"
    return _DAG_FILE.format(
        name=scheduled.name,
        dag_id=scheduled.schedule_name,
        description=f"Train {scheduled.name} anew",
        cron=options.expression.text,
        zone=options.time_zone,
        start=_literal(max(filter(None, (options.opens, now.astimezone(options.zone))))),
        end=_literal(options.closes - timedelta(seconds=1)) if options.closes else None,
        catchup=options.catch_up == "all",
        max_active_runs=2 if skips else 1,
        command=_untemplated(shlex.join(scheduled.command)),
        workdir=_untemplated(scheduled.workdir),
        skip_statuses=[int(ExitStatus.NO_NEW_DATA), int(ExitStatus.UNDER_WAY)],
    )


def _untemplated(text: str) -> str:
    """What Airflow renders to this text: it reads braces as Jinja, and the end .sh as the name of a template's file."""
    if "{" not in text and not text.endswith((".sh", ".bash")):
        return text
    escaped = "".join(character if character in _PLAIN else f"\\U{ord(character):08x}" for character in text)
    return f'{{{{ "{escaped}" }}}}'


_PLAIN = frozenset(string.ascii_letters + string.digits + " /._-=:,'")


def _literal(time: datetime) -> str:
    """A time as the file writes it."""
    return f"datetime({time.year}, {time.month}, {time.day}, {time.hour}, {time.minute}, {time.second}, tzinfo=ZONE)"


def _dags_folder(request: ScheduleRequest) -> Path:
    if request.folder is None:
        raise BrokenInput(
            "--folder is missing: Airflow's dags folder, `airflow config get-value core dags_folder` says it"
        )
    return request.folder


def _file_name(request: ScheduleRequest) -> str:
    return f"{request.scheduled.schedule_name.replace('-', '_')}.py"


def _show(request: ScheduleRequest) -> str:
    return airflow_dag(request.scheduled, datetime.now(UTC)).rstrip()


def _apply(request: ScheduleRequest) -> str:
    return write_schedule_files(_dags_folder(request), {_file_name(request): _show(request) + "\n"})


def _remove(request: ScheduleRequest) -> str:
    return remove_schedule_files(_dags_folder(request), [_file_name(request)])


AIRFLOW = ScheduleTarget(_show, _apply, _remove)
