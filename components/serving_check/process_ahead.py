"""The process of a check, started while there is other work to do: the import of TensorFlow takes seconds."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import serving


@dataclass(frozen=True)
class StartedProcess:
    """`serving.check_process`, which imports TensorFlow at once and ends with its standard input.

    Attributes:
        process: it, with pipes for standard input and output.
        errors: a file that its standard error goes to.
    """

    process: subprocess.Popen[bytes]
    errors: IO[bytes]

    def end(self) -> None:
        """Kill it: it holds nothing that needs an orderly end."""
        self.process.kill()
        self.process.communicate()
        self.errors.close()


_ahead: list[StartedProcess] = []


def start_ahead() -> None:
    """Start the process that the next check of this process takes, if none is waiting."""
    if not _ahead:
        _ahead.append(_start())


def end_ahead() -> None:
    """End a process that no check took."""
    while _ahead:
        _ahead.pop().end()


def take_process() -> StartedProcess:
    """The process that was started ahead, or a new one."""
    return _ahead.pop() if _ahead else _start()


def _start() -> StartedProcess:
    errors = tempfile.TemporaryFile()  # noqa: SIM115 (StartedProcess.end closes it)
    process = subprocess.Popen(
        [sys.executable, "-m", "serving.check_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=os.environ | {"PYTHONPATH": _this_code(), "TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    return StartedProcess(process, errors)


def _this_code() -> str:
    """PYTHONPATH for the process to run the same `serving` package as this one."""
    root = str(Path(serving.__path__[0]).parent)
    return os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
