"""What a target is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.schedules.scheduled_command import ScheduledCommand


@dataclass(frozen=True)
class ScheduleRequest:
    """A schedule on its way to a target.

    Attributes:
        config: of the model.
        path: of the config's file.
        scheduled: the command to start, and when.
        folder: where files go, None for the target's usual place.
    """

    config: RunConfig
    path: str
    scheduled: ScheduledCommand
    folder: Path | None
