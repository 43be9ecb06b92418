"""What a daemon knows of a schedule, also after it was killed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from components.errors import BrokenInput
from pipeline.schedules.last_run import LastRun


class RunJournal:
    """A folder with the last run, with how far the schedule is settled, and with a log of a line per run.

    A due time is settled once the process that is its run has begun, or once it was skipped.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def last_run(self) -> LastRun | None:
        """The run that was started last, None before the first."""
        content = self._read("last_run.json")
        times = {
            name: datetime.fromisoformat(content[name]) for name in ("due", "started", "ended") if content.get(name)
        }
        return LastRun(**{**content, **times}) if content else None

    @last_run.setter
    def last_run(self, run: LastRun) -> None:
        self._write("last_run.json", asdict(run))

    @property
    def settled(self) -> datetime | None:
        """Up to when nothing is due any more, in UTC; None for a new schedule."""
        skipped, last_run = self._read("settled.json").get("until"), self.last_run
        times = [datetime.fromisoformat(skipped)] if skipped else []
        return max([*times, last_run.due] if last_run else times, default=None)

    def settle(self, until: datetime) -> None:
        """Let nothing be due any more up to a time."""
        self._write("settled.json", {"until": until})

    def log(self, sentence: str) -> str:
        """Add a line to schedule.log, with the time in UTC before it; returns the line."""
        line = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {sentence}"
        with (self.folder / "schedule.log").open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        return line

    @contextmanager
    def lock(self, name: str, *, wait: bool) -> Iterator[int]:
        """Hold a lock, which the operating system takes from a process that dies; gives its file descriptor.

        Raises:
            BlockingIOError: another process holds it, and `wait` is false.
        """
        with (self.folder / name).open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            yield file.fileno()

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        try:
            content: dict[str, Any] = orjson.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise BrokenInput(
                f"{path}: not what a daemon wrote ({error}); remove it to begin the schedule anew"
            ) from error
        return content

    def _write(self, name: str, content: dict[str, Any]) -> None:
        """Whole or not at all, also when the machine goes down."""
        path = self.folder / name
        part = path.with_suffix(f".{os.getpid()}.part")
        with part.open("wb") as file:
            file.write(orjson.dumps(content))
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
