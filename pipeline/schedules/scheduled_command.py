"""What a schedule starts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.errors import BrokenInput
from pipeline.config import RunConfig
from pipeline.schedule_options import ScheduleOptions


@dataclass(frozen=True)
class ScheduledCommand:
    """A command and when to start it.

    Attributes:
        name: of the model.
        options: when.
        command: the program, by its absolute path, and its arguments.
        folder: where it runs, absolute.
    """

    name: str
    options: ScheduleOptions
    command: tuple[str, ...]
    folder: str

    @property
    def title(self) -> str:
        """What units, blocks and schedules of it are called."""
        return f"ingraph-{self.name}"


def scheduled_command(config: RunConfig, path: str, overrides: Sequence[str], workdir: str) -> ScheduledCommand:
    """`ingraph retrain` of a config as its `schedule` says.

    Args:
        config: as loaded.
        path: of its file.
        overrides: of its keys, as given to the command line.
        workdir: where runs/ and models/ are.

    Raises:
        BrokenInput: the config has no schedule.
    """
    if config.schedule.cron is None:
        raise BrokenInput(f'{path}: schedule.cron is missing: say when, `schedule: {{cron: "0 3 * * *"}}` for example')
    ingraph = str(Path(sys.executable).with_name("ingraph"))
    settings = [part for override in overrides for part in ("--set", override)]
    command = (ingraph, "retrain", str(Path(path).resolve()), *settings)
    return ScheduledCommand(config.name, config.schedule, command, str(Path(workdir).resolve()))
