"""The run journal: the state of a schedule on disk, which outlives the daemon.

Run as `python -m pipeline.schedules.journal FOLDER DUE COMMAND…`, this module is the process of one run: it records
itself before the command starts, so that a daemon that is killed and started again starts no run twice.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from components.errors import BrokenInput


@dataclass(frozen=True)
class LastRun:
    """The run that was started last; times in UTC.

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
    def message(self) -> str:
        """How it ended, for a log."""
        if self.ended is None or self.exit_status is None:
            return f"due {self.due:%Y-%m-%d %H:%M:%S}: died, and left no exit status"
        seconds = (self.ended - self.started).total_seconds()
        return f"due {self.due:%Y-%m-%d %H:%M:%S}: exit status {self.exit_status} after {seconds:.0f} s"


class RunJournal:
    """The folder of a schedule's state: the last run, up to when due times are settled, and a log of a line per run.

    A due time is settled once the process of its run has recorded itself, or once it was skipped. Due times are
    settled in order, so that one instant says which are.
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
    def settled_until(self) -> datetime | None:
        """The instant, in UTC, up to which all due times are settled; None for a new schedule."""
        skipped, last_run = self._read("settled.json").get("until"), self.last_run
        times = [datetime.fromisoformat(skipped)] if skipped else []
        return max([*times, last_run.due] if last_run else times, default=None)

    def settle(self, until: datetime) -> None:
        """Record that all due times up to an instant are settled."""
        self._write("settled.json", {"until": until})

    def check(self) -> None:
        """Read the state once.

        Raises:
            BrokenInput: it is damaged.
        """
        _ = self.settled_until

    def log(self, message: str) -> None:
        """Add a line to schedule.log, with the time in UTC before it."""
        with (self.folder / "schedule.log").open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {message}\n")

    @contextmanager
    def lock(self, name: str, *, blocking: bool) -> Iterator[int]:
        """Hold a lock, which the operating system takes from a process that dies; gives its file descriptor.

        Raises:
            BlockingIOError: another process holds it, and `blocking` is false.
        """
        with (self.folder / name).open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
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
        """Write atomically: whole or not at all, also when the machine goes down."""
        path = self.folder / name
        part = path.with_suffix(f".{os.getpid()}.part")
        with part.open("wb") as file:
            file.write(orjson.dumps(content))
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)


RUN_LOCK = "run.lock"
_COMMAND_NOT_FOUND = 127  # a shell's exit status for it


def _run_once(journal: RunJournal, due: datetime, command: Sequence[str]) -> None:
    """Run a command once for a due time, however many processes are told to.

    Waits for the run before it. The command's output goes to last_output.log beside the journal; SIGTERM is passed on.
    """
    with journal.lock(RUN_LOCK, blocking=True) as lock:
        settled = journal.settled_until
        if settled and settled >= due:
            return
        run = LastRun(due, datetime.now(UTC))
        journal.last_run = run
        status = _run_command(command, journal.folder / "last_output.log", lock)
        run = replace(run, ended=datetime.now(UTC), exit_status=status)
        journal.last_run = run
        journal.log(run.message)


def _run_command(command: Sequence[str], output: Path, lock: int) -> int:
    """Run a command; returns its exit status, negative where a signal killed it."""
    with output.open("wb") as file:
        try:
            # The command inherits the lock: for as long as it runs, also without this process, no other starts.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, pass_fds=[lock]
            )
        except OSError as error:
            file.write(f"{command[0]}: {error.strerror}\n".encode())
            return _COMMAND_NOT_FOUND
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        return process.wait()


if __name__ == "__main__":
    # Inherited from the daemon, which blocks both to wait for them.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM, signal.SIGINT])
    _run_once(RunJournal(Path(sys.argv[1])), datetime.fromisoformat(sys.argv[2]), sys.argv[3:])
