"""What a daemon does when it wakes up."""

from __future__ import annotations

from datetime import timedelta

from pipeline.schedules.local_schedule import LocalSchedule
from pipeline.schedules.plan_missed import plan_missed
from pipeline.schedules.work_off import work_off

# Noticed later than that, a due time counts as missed: the machine slept.
_PUNCTUAL = timedelta(seconds=60)


def take_turn(schedule: LocalSchedule) -> None:
    """Start what is due now, one run after the other; returns when all have ended. Waits for the turn before it."""
    with schedule.turn:
        now = schedule.now()
        work_off(schedule, plan_missed(schedule, now, missed_until=now - _PUNCTUAL), now)
