"""Running or skipping what is due, once each."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from collections.abc import Iterable
from datetime import datetime

from pipeline.schedules.due_time import DueTime
from pipeline.schedules.local_schedule import LocalSchedule
from pipeline.schedules.plan_overlapping import plan_overlapping

_SECONDS_BETWEEN_LOOKS = 0.2


def work_off(schedule: LocalSchedule, plan: Iterable[DueTime], seen: datetime) -> None:
    """Run or skip due times in order, and those that pass meanwhile; what is left when the daemon stops was missed.

    Args:
        schedule: whose times they are.
        plan: the due times.
        seen: up to when the plan goes.
    """
    left = deque(plan)
    while left and (left[0].skipped_because or not schedule.stop.is_set()):
        due = left.popleft()
        if due.skipped_because:
            schedule.journal.settle(due.time)
            schedule.tell(due.sentence)
        else:
            _run(schedule, due.time)
            now = schedule.now()
            left.extend(plan_overlapping(schedule, seen, now))
            seen = now


def _run(schedule: LocalSchedule, due: datetime) -> None:
    journal = schedule.journal
    launcher = [sys.executable, "-P", "-m", "pipeline.schedules.scheduled_run", str(journal.folder), due.isoformat()]
    with (journal.folder / "schedule.log").open("ab") as errors:
        # A session of its own: a Ctrl-C that is meant for the daemon does not end the run.
        process = subprocess.Popen(
            [*launcher, *schedule.command],
            cwd=schedule.workdir,
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            start_new_session=True,
        )
    while process.poll() is None and not schedule.end_run.wait(_SECONDS_BETWEEN_LOOKS):
        pass
    if process.poll() is None:
        process.terminate()
        process.wait()
    last_run = journal.last_run
    if last_run and last_run.due == due:
        schedule.say(f"{schedule.name}: {last_run.sentence}")
    else:  # not even its record could be written
        journal.settle(due)
        schedule.tell(f"due {due:%Y-%m-%d %H:%M:%S}: could not be started, exit status {process.returncode}")
