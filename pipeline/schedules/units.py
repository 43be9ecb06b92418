"""Units of the operating system: crontab lines for cron, a service and a timer for systemd.

Neither knows a window: the shell looks at the time before it starts anything.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterable
from pathlib import Path

from components.errors import BrokenInput
from pipeline.exit_status import ExitStatus
from pipeline.options import ScheduleOptions
from pipeline.schedules.cron import CronExpression, CronField
from pipeline.schedules.targets import (
    ScheduledCommand,
    ScheduleRequest,
    ScheduleTarget,
    remove_schedule_files,
    write_schedule_files,
)

_WEEKDAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
_SERVICE = """\
# Written by `ingraph schedule`.
[Unit]
Description=Train {name} anew

[Service]
Type=oneshot
WorkingDirectory={workdir}
{conditions}ExecStart={command}
SuccessExitStatus={success_statuses}
"""
_TIMER = """\
# Written by `ingraph schedule`, from the cron expression {cron}.
[Unit]
Description=When to train {name} anew

[Timer]
{calendar_events}AccuracySec=1s
Persistent={persistent}

[Install]
WantedBy=timers.target
"""


def crontab_block(scheduled: ScheduledCommand) -> str:
    """The lines for a crontab, between marks by which `replace_block` finds them again.

    CRON_TZ holds for the lines after it too, so the block belongs at the end. `ingraph retrain` starts no second run
    beside one that runs; to queue, flock(1) waits for the config file.

    https://man7.org/linux/man-pages/man5/crontab.5.html
    """
    options = scheduled.options
    queue = ["flock", scheduled.command[2]] if options.overlap == "queue" else []
    steps = [f"cd {shlex.quote(scheduled.workdir)}", shlex.join([*queue, *scheduled.command])]
    if options.closes:
        steps.insert(0, f'[ "$(date +%s)" -lt {options.closes.timestamp():.0f} ]')
    if options.opens:
        steps.insert(0, f'[ "$(date +%s)" -ge {options.opens.timestamp():.0f} ]')
    # cron reads a bare % as the end of the line, and of two backslashes before it only the first as one.
    command = " && ".join(steps).replace(r"\%", r"\''%").replace("%", r"\%")
    return (
        f"# begin {scheduled.schedule_name}: written by `ingraph schedule apply`; keep at the end\n"
        f"CRON_TZ={options.time_zone}\n"
        f"{options.expression.text} {command}\n"
        f"# end {scheduled.schedule_name}\n"
    )


def replace_block(crontab: str, schedule_name: str, block: str) -> str:
    """A crontab without the lines between the marks of a schedule, and with `block` at its end; all else as it was.

    Raises:
        BrokenInput: a mark has no counterpart, so that nobody knows what to replace.
    """
    name = re.escape(schedule_name)
    kept = re.sub(rf"(?ms)^# begin {name}:.*?^# end {name}(\n|\Z)", "", crontab)
    if mark := re.search(rf"(?m)^# (begin {name}:|end {name}$)", kept):
        raise BrokenInput(f"the crontab has `{mark[0]}` without its counterpart; mend it with `crontab -e`")
    return (kept if kept.endswith("\n") or not kept else f"{kept}\n") + block


def _edit_crontab(schedule_name: str, block: str) -> None:
    """Put a schedule's lines into the user's crontab in place of those it has, or take them out with an empty `block`.

    https://man7.org/linux/man-pages/man1/crontab.1.html

    Raises:
        BrokenInput: there is no crontab(1), or it did not take the lines.
    """
    present = _crontab("-l")
    # crontab(1) fails where a user has none yet.
    before = present.stdout if present.returncode == 0 else ""
    if present.returncode and "no crontab" not in present.stderr:
        raise BrokenInput(f"crontab -l failed, and nothing was changed: {' '.join(present.stderr.split())}")
    after = replace_block(before, schedule_name, block)
    if after == before:
        return
    written = _crontab("-", after)
    if written.returncode:
        raise BrokenInput(f"crontab did not take the schedule: {' '.join(written.stderr.split())}")


def _crontab(argument: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["crontab", argument],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        raise BrokenInput(
            "there is no crontab(1) on this machine: install cron, or choose --target systemd or `ingraph schedule run`"
        ) from None


def _show_crontab(request: ScheduleRequest) -> str:
    return crontab_block(request.scheduled).rstrip()


def _apply_crontab(request: ScheduleRequest) -> str:
    _edit_crontab(request.scheduled.schedule_name, crontab_block(request.scheduled))
    return f"the crontab has {request.scheduled.schedule_name}"


def _remove_crontab(request: ScheduleRequest) -> str:
    _edit_crontab(request.scheduled.schedule_name, "")
    return f"the crontab does not have {request.scheduled.schedule_name} any more"


CRONTAB = ScheduleTarget(_show_crontab, _apply_crontab, _remove_crontab)


def systemd_units(scheduled: ScheduledCommand) -> dict[str, str]:
    """File name -> content of a service and its timer.

    Every cron expression of five fields can be said exactly; where the day of the month or that of the week suffices,
    the timer has two lines.

    Raises:
        BrokenInput: systemd cannot name the folder.

    https://www.freedesktop.org/software/systemd/man/latest/systemd.time.html
    """
    options = scheduled.options
    if scheduled.workdir.strip() != scheduled.workdir or scheduled.workdir.endswith("\\"):
        raise BrokenInput(
            f"the folder {scheduled.workdir!r} ends with a blank or a backslash, which systemd does not read as its "
            "name; expected another name, or --target cron"
        )
    service = _SERVICE.format(
        name=scheduled.name,
        workdir=scheduled.workdir.replace("%", "%%"),
        conditions="".join(f"ExecCondition={line}\n" for line in _window_tests(options)),
        command=" ".join([_quoted(scheduled.command[0]).replace("$$", "$"), *map(_quoted, scheduled.command[1:])]),
        success_statuses=f"{ExitStatus.NO_NEW_DATA:d} {ExitStatus.UNDER_WAY:d}",
    )
    timer = _TIMER.format(
        name=scheduled.name,
        cron=options.expression.text,
        calendar_events="".join(
            f"OnCalendar={line} {options.time_zone}\n" for line in _calendar_events(options.expression)
        ),
        persistent=str(options.catch_up != "none").lower(),
    )
    return {f"{scheduled.schedule_name}.service": service, f"{scheduled.schedule_name}.timer": timer}


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
    """A field of a calendar event: its values in a format, or by their names."""
    if not field.restricts:
        return "*"
    return ",".join(names[value] if names else form.format(value) for value in field.values)


def _window_tests(options: ScheduleOptions) -> Iterable[str]:
    """Commands that succeed within the window."""
    for instant, comparison in ((options.opens, "-ge"), (options.closes, "-lt")):
        if instant:
            yield f"/bin/sh -c '[ \"$$(date +%%s)\" {comparison} {instant.timestamp():.0f} ]'"


def _quoted(argument: str) -> str:
    """An argument for ExecStart=, where % and $ would stand for something."""
    escaped = argument.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _unit_folder(request: ScheduleRequest) -> Path:
    return request.folder or Path.home() / ".config/systemd/user"


def _show_units(request: ScheduleRequest) -> str:
    units = systemd_units(request.scheduled)
    return "\n".join(f"# {_unit_folder(request) / name}\n{content}" for name, content in units.items()).rstrip()


def _apply_units(request: ScheduleRequest) -> str:
    written = write_schedule_files(_unit_folder(request), systemd_units(request.scheduled))
    timer = f"{request.scheduled.schedule_name}.timer"
    return (
        f"{written}\nnow type, for a user who has run `loginctl enable-linger` also when nobody is logged in:\n"
        f"  systemctl --user daemon-reload\n  systemctl --user enable {timer}\n  systemctl --user restart {timer}"
    )


def _remove_units(request: ScheduleRequest) -> str:
    removed = remove_schedule_files(_unit_folder(request), systemd_units(request.scheduled))
    timer = f"{request.scheduled.schedule_name}.timer"
    return f"{removed}\nnow type:\n  systemctl --user stop {timer}\n  systemctl --user daemon-reload"


SYSTEMD = ScheduleTarget(_show_units, _apply_units, _remove_units)
