"""The daemon on this machine."""

from __future__ import annotations

from components.errors import BrokenInput
from pipeline.schedules.schedule_request import ScheduleRequest
from pipeline.schedules.schedule_target import ScheduleTarget


def _show(request: ScheduleRequest) -> str:
    return f"ingraph schedule run {request.path}"


def _nothing_to_change(request: ScheduleRequest) -> str:
    raise BrokenInput(
        f"--target local: nothing is kept anywhere: `ingraph schedule run {request.path}` keeps the schedule for as "
        "long as it runs, and Ctrl-C or SIGTERM ends it"
    )


LOCAL = ScheduleTarget(_show, _nothing_to_change, _nothing_to_change)
