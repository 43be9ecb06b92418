"""Keeping schedules on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from pipeline.schedules.local_schedule import LocalSchedule
from pipeline.schedules.next_due import next_due
from pipeline.schedules.run_daemon import run_daemon
from pipeline.schedules.run_journal import RunJournal
from pipeline.schedules.scheduled_command import ScheduledCommand


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
