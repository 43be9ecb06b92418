"""Due times: when the cron expression and the window of a schedule want a run.

`next_due` is what the daemon, the command line and the tests of every target go by; `DueTrigger` is the same for
APScheduler. APScheduler's CronTrigger matches the fields; clock changes and the window are added here.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

from pipeline.options import ScheduleOptions
from pipeline.schedules.cron import CronExpression, CronField

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
