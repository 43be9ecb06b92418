"""Apache Airflow, by a file in its dags folder."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from components.errors import BrokenInput
from pipeline.schedules.airflow_dag import airflow_dag
from pipeline.schedules.schedule_files import remove_schedule_files, write_schedule_files
from pipeline.schedules.schedule_request import ScheduleRequest
from pipeline.schedules.schedule_target import ScheduleTarget


def _folder(request: ScheduleRequest) -> Path:
    if request.folder is None:
        raise BrokenInput(
            "--folder is missing: Airflow's dags folder, `airflow config get-value core dags_folder` says it"
        )
    return request.folder


def _file_name(request: ScheduleRequest) -> str:
    return f"{request.scheduled.title.replace('-', '_')}.py"


def _show(request: ScheduleRequest) -> str:
    return airflow_dag(request.scheduled, datetime.now(UTC)).rstrip()


def _apply(request: ScheduleRequest) -> str:
    return write_schedule_files(_folder(request), {_file_name(request): _show(request) + "\n"})


def _remove(request: ScheduleRequest) -> str:
    return remove_schedule_files(_folder(request), [_file_name(request)])


AIRFLOW = ScheduleTarget(_show, _apply, _remove)
