"""The candidate in a session, in a process of its own."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np

from components.serving_check.failures import ModelUnavailable, RequestRefused
from components.serving_check.process_ahead import take_process

SHOWN_LINES = 5


class ModelProcess:
    """`serving.check_process` as a context manager, started here unless it was started ahead.

    Args:
        timeout_seconds: how long the process may take for one answer, its start included in the first.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._timed_out = False

    def __enter__(self) -> ModelProcess:
        self._started = take_process()
        self._process = self._started.process
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._started.end()

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
            raise ModelUnavailable(self._how_it_ended()) from ended
        finally:
            deadline.cancel()
        if kind == "failed":
            raise RequestRefused(value)
        return value

    def _give_up(self) -> None:
        self._timed_out = True
        self._process.kill()

    def _how_it_ended(self) -> str:
        if self._timed_out:
            return f"the model's process gave no answer in {self._timeout_seconds:g} s"
        status = self._process.wait()
        self._started.errors.seek(0)
        printed = self._started.errors.read().decode(errors="replace").splitlines()
        # Frames of a C++ stack trace say nothing to a reader.
        lines = [line for line in printed if line.strip() and not line.lstrip().startswith("@")][-SHOWN_LINES:]
        return f"the model's process ended with status {status}: {' | '.join(lines) or 'it printed nothing'}"
