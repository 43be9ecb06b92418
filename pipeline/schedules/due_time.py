"""A time at which a run is due."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class DueTime:
    """A due time and what becomes of it: a run, unless there is a reason to skip it."""

    time: datetime
    skipped_because: str = ""

    @property
    def sentence(self) -> str:
        """For the log: why there was no run."""
        return f"due {self.time:%Y-%m-%d %H:%M:%S}: skipped: {self.skipped_because}"
