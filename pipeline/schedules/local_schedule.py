"""A schedule that a daemon on this machine keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Lock

from pipeline.schedule_options import CatchUp, Overlap
from pipeline.schedules.run_journal import RunJournal


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class LocalSchedule:
    """What is due for one model.

    Attributes:
        name: of the model, for the log.
        due_after: an instant -> the first due time after it in UTC; None when there is none any more.
        overlap: see ScheduleOptions.
        catch_up: see ScheduleOptions.
        command: what a run is.
        workdir: where it runs.
        journal: the state, which outlives the daemon.
        say: takes a line of the log.
        now: the clock.
        stop: set when no further run is to begin.
        end_run: set when the run that goes on is to end.
        turn: held while due times are worked off.
    """

    name: str
    due_after: Callable[[datetime], datetime | None]
    overlap: Overlap
    catch_up: CatchUp
    command: Sequence[str]
    workdir: Path
    journal: RunJournal
    say: Callable[[str], None] = print
    now: Callable[[], datetime] = _utc_now
    stop: Event = field(default_factory=Event)
    end_run: Event = field(default_factory=Event)
    turn: Lock = field(default_factory=Lock)

    def due_between(self, after: datetime, until: datetime) -> list[datetime]:
        """The due times after one instant and up to another, in order."""
        times: list[datetime] = []
        while (time := self.due_after(times[-1] if times else after)) and time <= until:
            times.append(time)
        return times

    def tell(self, sentence: str) -> None:
        """Put a sentence into the journal's log, and say it."""
        self.journal.log(sentence)
        self.say(f"{self.name}: {sentence}")
