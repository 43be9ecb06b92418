"""One run that is due, as a process of its own, which outlives a daemon that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pipeline.schedules.last_run import LastRun
from pipeline.schedules.run_journal import RunJournal

RUN_LOCK = "run.lock"
# What a shell says of a program that it cannot start.
_NO_PROGRAM = 127


def scheduled_run(journal: RunJournal, due: datetime, command: Sequence[str]) -> None:
    """Run a command once for a due time, however many processes are told to.

    Waits for the run before it. The command's output goes to last_output.log beside the journal; SIGTERM is passed on.
    """
    with journal.lock(RUN_LOCK, wait=True) as lock:
        if journal.settled and journal.settled >= due:
            return
        run = LastRun(due, datetime.now(UTC))
        journal.last_run = run
        status = _exit_status(command, journal.folder / "last_output.log", lock)
        run = replace(run, ended=datetime.now(UTC), exit_status=status)
        journal.last_run = run
        journal.log(run.sentence)


def _exit_status(command: Sequence[str], output: Path, lock: int) -> int:
    with output.open("wb") as file:
        try:
            # The command has the lock too: for as long as it runs, also without this process, no other begins.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, pass_fds=[lock]
            )
        except OSError as error:
            file.write(f"{command[0]}: {error.strerror}\n".encode())
            return _NO_PROGRAM
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        return process.wait()


if __name__ == "__main__":
    # The daemon that started this waits for its signals with both blocked.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM, signal.SIGINT])
    scheduled_run(RunJournal(Path(sys.argv[1])), datetime.fromisoformat(sys.argv[2]), sys.argv[3:])
