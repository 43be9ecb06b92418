"""What becomes of due times that nobody looked at yet."""

from __future__ import annotations

from datetime import datetime

from pipeline.schedules.due_time import DueTime
from pipeline.schedules.local_schedule import LocalSchedule


def plan_missed(schedule: LocalSchedule, until: datetime, missed_until: datetime) -> list[DueTime]:
    """The due times that are not settled, in order.

    Args:
        schedule: its catch_up decides about those that were missed.
        until: the last instant that counts.
        missed_until: what was due by then has been missed, what was due later is punctual.
    """
    due = schedule.due_between(schedule.journal.settled or until, until)
    match schedule.catch_up:
        case "none":
            reason = "missed, and catch_up is none"
            return [DueTime(time, reason if time <= missed_until else "") for time in due]
        case "latest":
            reason = "missed, and catch_up is latest"
            return [*(DueTime(time, reason) for time in due[:-1]), *map(DueTime, due[-1:])]
        case "all":
            return list(map(DueTime, due))
