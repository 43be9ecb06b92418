"""The local daemon, `ingraph schedule run`: runs on this machine, catch-up of missed ones, and overlap.

APScheduler wakes it at due times, coalesces the wake-ups that a sleeping machine or a long run held up, and queues them
in an executor of one thread per schedule. Which due times become runs is decided here, from the journal: jobs in memory
know nothing of the time before the process, and a job's function is not told its due time; misfire_grace_time counts
from when a thread is free, so that queued runs would be missed; coalesce names only the last of the times that it
merges, and max_instances reports an overlap before earlier due times are settled.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from zoneinfo import ZoneInfo

import click
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

from components.errors import BrokenInput, RunUnderWay
from pipeline.options import CatchUp, Overlap, ScheduleOptions
from pipeline.schedules.cron import CronExpression, CronField
from pipeline.schedules.journal import RUN_LOCK, RunJournal
from pipeline.schedules.targets import ScheduledCommand, ScheduleRequest, ScheduleTarget

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_POLL_SECONDS = 0.2
_GRACE_TIME = timedelta(seconds=60)  # noticed later than that, a due time counts as missed: the machine slept


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class LocalSchedule:
    """A schedule that the daemon runs.

    Attributes:
        name: of the model, for the log.
        trigger: its due times, in UTC.
        overlap: see ScheduleOptions.
        catch_up: see ScheduleOptions.
        command: what a run executes.
        workdir: where it runs.
        journal: the state, which outlives the daemon.
        echo: prints a line of the log.
        now: the clock.
        stopping: set when no further run is to start.
        terminating: set when the run under way is to be terminated.
    """

    name: str
    trigger: BaseTrigger
    overlap: Overlap
    catch_up: CatchUp
    command: Sequence[str]
    workdir: Path
    journal: RunJournal
    echo: Callable[[str], None] = print
    now: Callable[[], datetime] = _utc_now
    stopping: Event = field(default_factory=Event)
    terminating: Event = field(default_factory=Event)

    def log(self, message: str) -> None:
        """Add a message to the journal's log, and print it."""
        self.journal.log(message)
        self.echo(f"{self.name}: {message}")


def local_schedule(scheduled: ScheduledCommand, journal: Path) -> LocalSchedule:
    """The schedule of a command; makes its working directory and the folder of its journal."""
    workdir = Path(scheduled.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    return LocalSchedule(
        name=scheduled.name,
        trigger=DueTrigger(scheduled.options),
        overlap=scheduled.options.overlap,
        catch_up=scheduled.options.catch_up,
        command=scheduled.command,
        workdir=workdir,
        journal=RunJournal(journal.resolve()),
        echo=click.echo,
    )


@dataclass(frozen=True)
class _PlannedRun:
    """A due time that becomes a run, unless there is a reason to skip it."""

    due: datetime
    skip_reason: str = ""


def _due_between(schedule: LocalSchedule, after: datetime, until: datetime) -> list[datetime]:
    """The due times after one instant and up to another, in order."""
    times: list[datetime] = []
    while (time := schedule.trigger.get_next_fire_time(after, after)) and time <= until:
        times.append(time)
        after = time
    return times


def _plan_unsettled(schedule: LocalSchedule, until: datetime, missed_until: datetime) -> list[_PlannedRun]:
    """The due times that are not settled, in order.

    Args:
        schedule: its `catch_up` decides about those that were missed.
        until: the last instant that counts.
        missed_until: what was due by then was missed, what was due later is punctual.
    """
    due = _due_between(schedule, schedule.journal.settled_until or until, until)
    match schedule.catch_up:
        case "none":
            reason = "missed, and catch_up is none"
            return [_PlannedRun(time, reason if time <= missed_until else "") for time in due]
        case "latest":
            reason = "missed, and catch_up is latest"
            return [*(_PlannedRun(time, reason) for time in due[:-1]), *map(_PlannedRun, due[-1:])]
        case "all":
            return list(map(_PlannedRun, due))


def _plan_overlapping(schedule: LocalSchedule, after: datetime, until: datetime) -> list[_PlannedRun]:
    """The due times while a run was under way, in order; the schedule's `overlap` decides about them."""
    reason = "another run was under way, and overlap is skip" if schedule.overlap == "skip" else ""
    return [_PlannedRun(time, reason) for time in _due_between(schedule, after, until)]


def start_schedule(schedule: LocalSchedule) -> None:
    """Catch up: what fell due while no daemon was there was missed; a new schedule has missed nothing.

    A run that an earlier daemon left behind is waited for; what falls due meanwhile overlaps with it.
    """
    journal, start = schedule.journal, schedule.now()
    if journal.settled_until is None:
        journal.settle(start)
    waited = _wait_for_run_of_earlier_daemon(schedule)
    plan = _plan_unsettled(schedule, start, missed_until=start)
    planned_until = start
    if waited:
        planned_until = schedule.now()
        plan += _plan_overlapping(schedule, start, planned_until)
    _execute(schedule, plan, planned_until)


def run_due(schedule: LocalSchedule) -> None:
    """Run what is due now, one run after the other; returns when all have ended."""
    now = schedule.now()
    _execute(schedule, _plan_unsettled(schedule, now, missed_until=now - _GRACE_TIME), now)


def _wait_for_run_of_earlier_daemon(schedule: LocalSchedule) -> bool:
    """Whether there was one to wait for; one that died without an exit status is logged."""
    journal, waited = schedule.journal, False
    while not schedule.stopping.is_set():
        try:
            with journal.lock(RUN_LOCK, blocking=False):
                last_run = journal.last_run
                if last_run and last_run.ended is None:
                    journal.last_run = replace(last_run, ended=schedule.now())
                    schedule.log(last_run.message)
                return waited
        except BlockingIOError:
            waited = True
            schedule.stopping.wait(_POLL_SECONDS)
    return waited


def _execute(schedule: LocalSchedule, plan: Iterable[_PlannedRun], planned_until: datetime) -> None:
    """Run or skip due times in order, then those that pass meanwhile; what is left when the daemon stops was missed."""
    left = deque(plan)
    while left and (left[0].skip_reason or not schedule.stopping.is_set()):
        planned = left.popleft()
        if planned.skip_reason:
            schedule.journal.settle(planned.due)
            schedule.log(f"due {planned.due:%Y-%m-%d %H:%M:%S}: skipped: {planned.skip_reason}")
        else:
            _run(schedule, planned.due)
            now = schedule.now()
            left.extend(_plan_overlapping(schedule, planned_until, now))
            planned_until = now


def _run(schedule: LocalSchedule, due: datetime) -> None:
    """Start the process of a run, and wait for it."""
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
    while process.poll() is None and not schedule.terminating.wait(_POLL_SECONDS):
        pass
    if process.poll() is None:
        process.terminate()
        process.wait()
    last_run = journal.last_run
    if last_run and last_run.due == due:
        schedule.echo(f"{schedule.name}: {last_run.message}")
    else:  # not even its record could be written
        journal.settle(due)
        schedule.log(f"due {due:%Y-%m-%d %H:%M:%S}: could not be started, exit status {process.returncode}")


def run_daemon(schedules: Sequence[LocalSchedule]) -> None:
    """Run schedules until SIGTERM or SIGINT; then a run under way is waited for, and terminated by a second signal.

    Raises:
        BrokenInput: the state of a schedule is damaged.
        RunUnderWay: another daemon runs one of the schedules.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # threads inherit that, so that sigwait gets every signal
    with ExitStack() as locks:
        for schedule in schedules:
            try:
                locks.enter_context(schedule.journal.lock("daemon.lock", blocking=False))
            except BlockingIOError:
                raise RunUnderWay(
                    f"{schedule.journal.folder}: another daemon keeps the schedule of {schedule.name}; end it first"
                ) from None
            schedule.journal.check()
        scheduler = BackgroundScheduler(
            timezone=UTC,
            job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": sys.maxsize},
        )
        # Waiting does not count the time that the machine sleeps; looking at the clock now and then does.
        scheduler.add_job(bool, "interval", seconds=30)
        for schedule in schedules:
            executor = str(schedule.journal.folder)
            scheduler.add_executor(ThreadPoolExecutor(max_workers=1), executor)
            scheduler.add_job(start_schedule, args=[schedule], executor=executor)
            scheduler.add_job(run_due, schedule.trigger, args=[schedule], executor=executor)
        scheduler.start()
        signal.sigwait(_SIGNALS)
        for schedule in schedules:
            schedule.stopping.set()
            schedule.echo(f"{schedule.name}: ending; a run that goes on is waited for, a second signal ends it too")
        threading.Thread(target=_terminate_at_second_signal, args=[schedules], daemon=True).start()
        scheduler.shutdown(wait=True)


def _terminate_at_second_signal(schedules: Sequence[LocalSchedule]) -> None:
    signal.sigwait(_SIGNALS)
    for schedule in schedules:
        schedule.terminating.set()


def _show(request: ScheduleRequest) -> str:
    return f"ingraph schedule run {request.path}"


def _nothing_to_change(request: ScheduleRequest) -> str:
    raise BrokenInput(
        f"--target local: nothing is kept anywhere: `ingraph schedule run {request.path}` keeps the schedule for as "
        "long as it runs, and Ctrl-C or SIGTERM ends it"
    )


LOCAL = ScheduleTarget(_show, _nothing_to_change, _nothing_to_change)


_CLOCK_CHANGE = timedelta(hours=3)  # no clock is set by more


class DueTrigger(BaseTrigger):
    """An APScheduler trigger that fires at the due times of a schedule, in UTC."""

    def __init__(self, options: ScheduleOptions) -> None:
        self._options = options

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """The first due time after the previous one, or after now; None when the window has closed."""
        return next_due(self._options, previous_fire_time or now)


def next_due(options: ScheduleOptions, after: datetime) -> datetime | None:
    """The first time after an instant at which a run is due, in UTC; None when the window has closed.

    When clocks are set forward, a run in the hour that is left out comes an hour later by the clock. When they are set
    back, the hour that comes twice counts once, unless minute or hour is a star: those runs go by, evenly.
    """
    expression, zone = options.expression, options.zone
    repeats = expression.minute.text.startswith("*") or expression.hour.text.startswith("*")
    if options.opens and after < options.opens:
        after = options.opens - timedelta(seconds=1)
    start = after - _margin(after, zone)
    found: datetime | None = None
    for wall in _wall_times(expression, start.astimezone(zone).replace(tzinfo=UTC)):
        first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        if found and first > found + _margin(found, zone):
            break
        for instant in (first, second) if repeats else (first,):
            if instant > after and (found is None or instant < found):
                found = instant
    return found if found and not (options.closes and found >= options.closes) else None


def _margin(instant: datetime, zone: ZoneInfo) -> timedelta:
    """How far around an instant times by the clock may be out of order."""
    offsets = {(instant + change).astimezone(zone).utcoffset() for change in (-_CLOCK_CHANGE, _CLOCK_CHANGE)}
    return _CLOCK_CHANGE if len(offsets) > 1 else timedelta()


def _wall_times(expression: CronExpression, start: datetime) -> Iterator[datetime]:
    """What a clock shows when the expression matches, as if it were UTC, where no clock is ever set."""
    trigger = _cron_trigger(expression)
    time = trigger.get_next_fire_time(None, start)
    while time:
        yield time
        time = trigger.get_next_fire_time(None, time + timedelta(seconds=1))


def _cron_trigger(expression: CronExpression) -> BaseTrigger:
    """The expression for APScheduler, whose cron wants both kinds of day to match, and whose weeks begin on Monday."""
    time = {"minute": _list(expression.minute), "hour": _list(expression.hour), "month": _list(expression.month)}
    day = {"day": _list(expression.day)}
    weekday = {"day_of_week": ",".join(str((value - 1) % 7) for value in expression.weekday.values)}
    if expression.either_day:
        return OrTrigger([CronTrigger(**time, **day, timezone=UTC), CronTrigger(**time, **weekday, timezone=UTC)])
    return CronTrigger(**time, **day, **weekday, timezone=UTC)


def _list(field: CronField) -> str:
    return ",".join(map(str, field.values))
