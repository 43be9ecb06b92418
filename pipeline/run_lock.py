"""One run of a pipeline at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from components.errors import RunUnderWay

LOCK_FILE = "lock"


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Keep other processes from running the same pipeline.

    The operating system takes the lock from a process that ends, however it ends: nothing is left to clean up. The
    file stays, and says who had the lock last.

    Args:
        folder: of the runs of the pipeline.

    Raises:
        RunUnderWay: another process holds the lock; the message says which.
    """
    path = folder / LOCK_FILE
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise RunUnderWay(f"{folder}: {holder} runs this pipeline; wait until it has ended") from None
        file.truncate(0)
        file.write(f"process {os.getpid()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC,")
        file.flush()
        yield
