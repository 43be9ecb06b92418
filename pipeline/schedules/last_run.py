"""The run of a schedule that was started last."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class LastRun:
    """A run; times in UTC.

    Attributes:
        due: when it was due.
        started: when it started.
        ended: when it ended; None as long as that is not known.
        exit_status: of its process, negative where a signal killed it; None as long as that is not known.
    """

    due: datetime
    started: datetime
    ended: datetime | None = None
    exit_status: int | None = None

    @property
    def sentence(self) -> str:
        """How it went, for a log."""
        if self.ended is None or self.exit_status is None:
            return f"due {self.due:%Y-%m-%d %H:%M:%S}: died, and left no exit status"
        seconds = (self.ended - self.started).total_seconds()
        return f"due {self.due:%Y-%m-%d %H:%M:%S}: exit status {self.exit_status} after {seconds:.0f} s"
