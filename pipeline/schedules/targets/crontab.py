"""cron, by crontab(1)."""

from __future__ import annotations

from pipeline.schedules.crontab_block import crontab_block
from pipeline.schedules.edit_crontab import edit_crontab
from pipeline.schedules.schedule_request import ScheduleRequest
from pipeline.schedules.schedule_target import ScheduleTarget


def _show(request: ScheduleRequest) -> str:
    return crontab_block(request.scheduled).rstrip()


def _apply(request: ScheduleRequest) -> str:
    edit_crontab(request.scheduled.title, _show(request) + "\n")
    return f"the crontab has {request.scheduled.title}"


def _remove(request: ScheduleRequest) -> str:
    edit_crontab(request.scheduled.title, "")
    return f"the crontab does not have {request.scheduled.title} any more"


CRONTAB = ScheduleTarget(_show, _apply, _remove)
