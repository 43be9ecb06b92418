"""The user's systemd."""

from __future__ import annotations

from pathlib import Path

from pipeline.schedules.schedule_files import remove_schedule_files, write_schedule_files
from pipeline.schedules.schedule_request import ScheduleRequest
from pipeline.schedules.schedule_target import ScheduleTarget
from pipeline.schedules.systemd_units import systemd_units


def _folder(request: ScheduleRequest) -> Path:
    return request.folder or Path.home() / ".config/systemd/user"


def _show(request: ScheduleRequest) -> str:
    units = systemd_units(request.scheduled)
    return "\n".join(f"# {_folder(request) / name}\n{content}" for name, content in units.items()).rstrip()


def _apply(request: ScheduleRequest) -> str:
    written = write_schedule_files(_folder(request), systemd_units(request.scheduled))
    timer = f"{request.scheduled.title}.timer"
    return (
        f"{written}\nnow type, for a user who has run `loginctl enable-linger` also when nobody is logged in:\n"
        f"  systemctl --user daemon-reload\n  systemctl --user enable {timer}\n  systemctl --user restart {timer}"
    )


def _remove(request: ScheduleRequest) -> str:
    removed = remove_schedule_files(_folder(request), systemd_units(request.scheduled))
    timer = f"{request.scheduled.title}.timer"
    return f"{removed}\nnow type:\n  systemctl --user stop {timer}\n  systemctl --user daemon-reload"


SYSTEMD = ScheduleTarget(_show, _apply, _remove)
