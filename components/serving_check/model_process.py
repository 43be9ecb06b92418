"""The candidate in a session, in a process of its own that is started ahead of time."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import serving
from components.errors import ModelUnavailable, RequestRefused

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class StartedProcess:
    """`serving.check_process`, which imports TensorFlow at once and ends with its standard input.

    Attributes:
        process: it, with pipes for standard input and output.
        errors: a file that its standard error goes to.
    """

    process: subprocess.Popen[bytes]
    errors: IO[bytes]

    def kill(self) -> None:
        """Kill it, also where this is a fork of the process that started it: Popen takes it for ended then."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill it: it holds nothing that needs an orderly end."""
        self.kill()
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


def hand_over() -> None:
    """Leave a process that waits to a fork of this one, which was made since: close the pipes here."""
    for process in (started.process for started in _ahead):
        for pipe in filter(None, (process.stdin, process.stdout)):
            pipe.close()
        process.stdin = process.stdout = None


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


SHOWN_LINES = 5
_running: list[ModelProcess] = []


def interrupt_running() -> None:
    """End what checks of other threads run: KeyboardInterrupt is raised there, so that nothing is said of a model."""
    for process in list(_running):
        process.interrupt()


class ModelProcess:
    """`serving.check_process` as a context manager, started here unless it was started ahead.

    Args:
        timeout_seconds: how long the process may take for one answer, its start included in the first.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._timed_out = False
        self._interrupted = False

    def __enter__(self) -> ModelProcess:
        self._started = take_process()
        self._process = self._started.process
        _running.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _running.remove(self)
        self._started.end()

    def interrupt(self) -> None:
        """End it; whoever waits for an answer gets a KeyboardInterrupt."""
        self._interrupted = True
        self._started.kill()

    def load(self, path: str) -> float:
        """Load a SavedModel; how many seconds that took.

        Raises:
            ModelUnavailable: the session loader refuses it.
        """
        try:
            return float(self._ask("load", path))
        except RequestRefused as refusal:
            raise ModelUnavailable(f"the model does not load in a session: {refusal}") from refusal

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of a signature.

        Raises:
            RequestRefused: the model fails on these inputs.
            ModelUnavailable: the process has ended, or did not answer in time.
        """
        outputs: dict[str, np.ndarray] = self._ask("run", signature, inputs)
        return outputs

    def time(self, signature: str, inputs: Mapping[str, np.ndarray], at_most: int) -> list[float]:
        """Seconds of up to `at_most` repeated runs; raises as `run` does."""
        seconds: list[float] = self._ask("time", signature, inputs, at_most)
        return seconds

    def _ask(self, *question: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        deadline = threading.Timer(self._timeout_seconds, self._give_up)
        deadline.start()
        try:
            pickle.dump(question, self._process.stdin)
            self._process.stdin.flush()
            kind, value = pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as ended:
            if self._interrupted:
                raise KeyboardInterrupt from ended
            raise ModelUnavailable(self._how_it_ended()) from ended
        finally:
            deadline.cancel()
        if kind == "failed":
            raise RequestRefused(value)
        return value

    def _give_up(self) -> None:
        self._timed_out = True
        self._started.kill()

    def _how_it_ended(self) -> str:
        if self._timed_out:
            return f"the model's process gave no answer in {self._timeout_seconds:g} s"
        status = self._process.wait()
        self._started.errors.seek(0)
        printed = self._started.errors.read().decode(errors="replace").splitlines()
        # Frames of a C++ stack trace say nothing to a reader.
        lines = [line for line in printed if line.strip() and not line.lstrip().startswith("@")][-SHOWN_LINES:]
        return f"the model's process ended with status {status}: {' | '.join(lines) or 'it printed nothing'}"
