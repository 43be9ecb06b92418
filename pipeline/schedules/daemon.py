"""The daemon that keeps schedules on this machine."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Event, Lock

import click
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from components.errors import BrokenInput, RunUnderWay
from pipeline.options import CatchUp, Overlap
from pipeline.schedules.due import DueTime, next_due
from pipeline.schedules.journal import RUN_LOCK, RunJournal
from pipeline.schedules.targets import ScheduledCommand, ScheduleRequest, ScheduleTarget


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class LocalSchedule:
    """What is due for one model.

    Attributes:
        name: of the model, for the log.
        due_after: an instant -> the first due time after it in UTC; None when there is none any more.
        overlap: see ScheduleOptions.
        catch_up: see ScheduleOptions.
        command: what a run is.
        workdir: where it runs.
        journal: the state, which outlives the daemon.
        say: takes a line of the log.
        now: the clock.
        stop: set when no further run is to begin.
        end_run: set when the run that goes on is to end.
        turn: held while due times are worked off.
    """

    name: str
    due_after: Callable[[datetime], datetime | None]
    overlap: Overlap
    catch_up: CatchUp
    command: Sequence[str]
    workdir: Path
    journal: RunJournal
    say: Callable[[str], None] = print
    now: Callable[[], datetime] = _utc_now
    stop: Event = field(default_factory=Event)
    end_run: Event = field(default_factory=Event)
    turn: Lock = field(default_factory=Lock)

    def due_between(self, after: datetime, until: datetime) -> list[datetime]:
        """The due times after one instant and up to another, in order."""
        times: list[datetime] = []
        while (time := self.due_after(times[-1] if times else after)) and time <= until:
            times.append(time)
        return times

    def tell(self, sentence: str) -> None:
        """Put a sentence into the journal's log, and say it."""
        self.journal.log(sentence)
        self.say(f"{self.name}: {sentence}")


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
    launcher = [sys.executable, "-P", "-m", "pipeline.schedules.journal", str(journal.folder), due.isoformat()]
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


# Noticed later than that, a due time counts as missed: the machine slept.
_PUNCTUAL = timedelta(seconds=60)


def take_turn(schedule: LocalSchedule) -> None:
    """Start what is due now, one run after the other; returns when all have ended. Waits for the turn before it."""
    with schedule.turn:
        now = schedule.now()
        work_off(schedule, plan_missed(schedule, now, missed_until=now - _PUNCTUAL), now)


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


def keep_schedules(commands: Sequence[ScheduledCommand], folders: Sequence[Path]) -> None:
    """Start commands whenever they are due, until SIGTERM or SIGINT.

    Args:
        commands: what to start, and when.
        folders: of each one's journal.

    Raises:
        RunUnderWay: another daemon keeps one of the schedules.
    """
    for scheduled in commands:
        Path(scheduled.folder).mkdir(parents=True, exist_ok=True)
    run_daemon(
        [
            LocalSchedule(
                name=scheduled.name,
                due_after=partial(next_due, scheduled.options),
                overlap=scheduled.options.overlap,
                catch_up=scheduled.options.catch_up,
                command=scheduled.command,
                workdir=Path(scheduled.folder),
                journal=RunJournal(folder.resolve()),
                say=click.echo,
            )
            for scheduled, folder in zip(commands, folders, strict=True)
        ]
    )


def _show(request: ScheduleRequest) -> str:
    return f"ingraph schedule run {request.path}"


def _nothing_to_change(request: ScheduleRequest) -> str:
    raise BrokenInput(
        f"--target local: nothing is kept anywhere: `ingraph schedule run {request.path}` keeps the schedule for as "
        "long as it runs, and Ctrl-C or SIGTERM ends it"
    )


LOCAL = ScheduleTarget(_show, _nothing_to_change, _nothing_to_change)


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


def plan_overlapping(schedule: LocalSchedule, after: datetime, until: datetime) -> list[DueTime]:
    """The due times after one instant and up to another, in order; the schedule's overlap decides about them."""
    reason = "another run was under way, and overlap is skip" if schedule.overlap == "skip" else ""
    return [DueTime(time, reason) for time in schedule.due_between(after, until)]
