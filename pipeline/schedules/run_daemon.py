"""The daemon that keeps schedules on this machine."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from components.errors import RunUnderWay
from pipeline.schedules.begin_schedule import begin_schedule
from pipeline.schedules.local_schedule import LocalSchedule
from pipeline.schedules.take_turn import take_turn

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# A turn, and the one that waits for it.
_TURNS = 2


def run_daemon(schedules: Sequence[LocalSchedule]) -> None:
    """Keep schedules until SIGTERM or SIGINT; then a run that goes on is waited for, and ended by a second signal.

    APScheduler wakes the daemon at due times; which of them are to be run, the schedules' journals decide.

    Raises:
        RunUnderWay: another daemon keeps one of the schedules.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # threads take that over, so that sigwait gets every signal
    with ExitStack() as locks:
        for schedule in schedules:
            try:
                locks.enter_context(schedule.journal.lock("daemon.lock", wait=False))
            except BlockingIOError:
                raise RunUnderWay(
                    f"{schedule.journal.folder}: another daemon keeps the schedule of {schedule.name}; end it first"
                ) from None
        scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor((_TURNS + 1) * len(schedules))},
            job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": _TURNS},
        )
        # Waiting does not count the time that the machine sleeps; looking at the clock now and then does.
        scheduler.add_job(bool, "interval", seconds=30)
        for schedule in schedules:
            scheduler.add_job(_keep, args=[scheduler, schedule])
        scheduler.start()
        signal.sigwait(_SIGNALS)
        for schedule in schedules:
            schedule.stop.set()
            schedule.say(f"{schedule.name}: ending; a run that goes on is waited for, a second signal ends it too")
        threading.Thread(target=_end_runs, args=[schedules], daemon=True).start()
        scheduler.shutdown(wait=True)


def _keep(scheduler: BackgroundScheduler, schedule: LocalSchedule) -> None:
    begin_schedule(schedule)
    if not schedule.stop.is_set():
        scheduler.add_job(take_turn, _DueTrigger(schedule), args=[schedule])


def _end_runs(schedules: Sequence[LocalSchedule]) -> None:
    signal.sigwait(_SIGNALS)
    for schedule in schedules:
        schedule.end_run.set()


class _DueTrigger(BaseTrigger):
    """The due times of a schedule, for APScheduler."""

    def __init__(self, schedule: LocalSchedule) -> None:
        self._schedule = schedule

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """The due time after the previous one, or after what is settled."""
        return self._schedule.due_after(previous_fire_time or self._schedule.journal.settled or now)
