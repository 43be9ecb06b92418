"""What a daemon does first."""

from __future__ import annotations

from dataclasses import replace

from pipeline.schedules.local_schedule import LocalSchedule
from pipeline.schedules.plan_missed import plan_missed
from pipeline.schedules.plan_overlapping import plan_overlapping
from pipeline.schedules.scheduled_run import RUN_LOCK
from pipeline.schedules.work_off import work_off

_SECONDS_BETWEEN_LOOKS = 0.2


def begin_schedule(schedule: LocalSchedule) -> None:
    """Settle what came before: what fell due while no daemon was there was missed; a new schedule begins now.

    A run that an earlier daemon left behind is waited for; what falls due meanwhile overlaps with it.
    """
    journal, start = schedule.journal, schedule.now()
    if journal.settled is None:
        journal.settle(start)
    waited = _wait_for_run_of_earlier_daemon(schedule)
    plan = plan_missed(schedule, start, missed_until=start)
    now = schedule.now()
    if waited:
        plan += plan_overlapping(schedule, start, now)
    work_off(schedule, plan, now if waited else start)


def _wait_for_run_of_earlier_daemon(schedule: LocalSchedule) -> bool:
    journal, waited = schedule.journal, False
    while not schedule.stop.is_set():
        try:
            with journal.lock(RUN_LOCK, wait=False):
                last_run = journal.last_run
                if last_run and last_run.ended is None:
                    journal.last_run = replace(last_run, ended=schedule.now())
                    schedule.tell(last_run.sentence)
                return waited
        except BlockingIOError:
            waited = True
            schedule.stop.wait(_SECONDS_BETWEEN_LOOKS)
    return waited
