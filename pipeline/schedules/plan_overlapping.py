"""What becomes of due times that passed while a run was under way."""

from __future__ import annotations

from datetime import datetime

from pipeline.schedules.due_time import DueTime
from pipeline.schedules.local_schedule import LocalSchedule


def plan_overlapping(schedule: LocalSchedule, after: datetime, until: datetime) -> list[DueTime]:
    """The due times after one instant and up to another, in order; the schedule's overlap decides about them."""
    reason = "another run was under way, and overlap is skip" if schedule.overlap == "skip" else ""
    return [DueTime(time, reason) for time in schedule.due_between(after, until)]
