"""A schedule as a service and a timer of systemd."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.exit_status import ExitStatus
from pipeline.schedule_options import ScheduleOptions
from pipeline.schedules.cron_expression import CronExpression, CronField
from pipeline.schedules.scheduled_command import ScheduledCommand

_WEEKDAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
_SERVICE = """\
# Written by `ingraph schedule`.
[Unit]
Description=Train {name} anew

[Service]
Type=oneshot
WorkingDirectory={folder}
{conditions}ExecStart={command}
SuccessExitStatus={fine}
"""
_TIMER = """\
# Written by `ingraph schedule`, from the cron expression {cron}.
[Unit]
Description=When to train {name} anew

[Timer]
{times}AccuracySec=1s
Persistent={persistent}

[Install]
WantedBy=timers.target
"""


def systemd_units(scheduled: ScheduledCommand) -> dict[str, str]:
    """File name -> content of a service and its timer.

    Every cron expression of five fields can be said exactly; where the day of the month or that of the week suffices,
    the timer has two lines. systemd has no window: the service looks at the time, and does nothing outside.

    https://www.freedesktop.org/software/systemd/man/latest/systemd.time.html
    """
    options = scheduled.options
    service = _SERVICE.format(
        name=scheduled.name,
        folder=scheduled.folder.replace("%", "%%"),
        conditions="".join(f"ExecCondition={line}\n" for line in _window(options)),
        command=" ".join(map(_quoted, scheduled.command)),
        fine=f"{ExitStatus.NO_NEW_DATA:d} {ExitStatus.UNDER_WAY:d}",
    )
    timer = _TIMER.format(
        name=scheduled.name,
        cron=options.expression.text,
        times="".join(f"OnCalendar={line} {options.time_zone}\n" for line in _calendar_events(options.expression)),
        persistent=str(options.catch_up != "none").lower(),
    )
    return {f"{scheduled.title}.service": service, f"{scheduled.title}.timer": timer}


def _calendar_events(expression: CronExpression) -> list[str]:
    """The calendar events that together stand for the same times, without a time zone."""
    days = _list(expression.day, "{:02}")
    weekdays = _list(expression.weekday, "{}", _WEEKDAYS)
    month = _list(expression.month, "{:02}")
    time = f"{_list(expression.hour, '{:02}')}:{_list(expression.minute, '{:02}')}:00"
    if expression.either_day:
        return [f"*-{month}-{days} {time}", f"{weekdays} *-{month}-* {time}"]
    date = f"*-{month}-{days} {time}"
    return [f"{weekdays} {date}" if expression.weekday.restricts else date]


def _list(field: CronField, form: str, names: tuple[str, ...] = ()) -> str:
    if not field.restricts:
        return "*"
    return ",".join(names[value] if names else form.format(value) for value in field.values)


def _window(options: ScheduleOptions) -> Iterable[str]:
    for instant, comparison in ((options.opens, "-ge"), (options.closes, "-lt")):
        if instant:
            yield f"/bin/sh -c '[ \"$$(date +%%s)\" {comparison} {instant.timestamp():.0f} ]'"


def _quoted(argument: str) -> str:
    """As systemd reads it: % and $ would stand for something."""
    escaped = argument.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'
