"""A process that runs one SavedModel in a session, for whoever holds the other end of its pipes.

`python -m serving.check_process` reads pickled questions from standard input and writes one pickled answer to each on
standard output, until the input ends:

    ("load", path)                       -> ("loaded", seconds)
    ("run", signature, inputs)           -> ("outputs", {output: array})
    ("time", signature, inputs, at_most) -> ("seconds", [float, …]), one per repeated run
    any of them                          -> ("failed", what TensorFlow says)

It imports TensorFlow, NumPy and the standard library only, as a model server has none of the libraries that made the
model: what needs more than that fails here and not in production.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from serving.loading import garbage_collection_paused

Answer = tuple[str, Any]

# Repetitions stop here: half a second tells enough, also of a model that takes long.
TIMING_SECONDS = 0.5


class _ModelProcess:
    def __init__(self) -> None:
        # TensorFlow imports the Keras it finds (TF_USE_LEGACY_KERAS, which tensorflow_transform sets for its children
        # too, says which), and spends a third of the time on it; a server has none.
        for name in ("keras", "tf_keras"):
            sys.modules[name] = None  # type: ignore[assignment]
        with garbage_collection_paused():
            from serving.session_model import SessionModel

        self._session_model = SessionModel
        self._model: SessionModel | None = None

    def load(self, path: str) -> Answer:
        start = time.perf_counter()
        self._model = self._session_model(path)
        return "loaded", time.perf_counter() - start

    def run(self, signature: str, inputs: Mapping[str, Any]) -> Answer:
        assert self._model is not None, "load comes first"
        return "outputs", self._model.run(signature, inputs)

    def time(self, signature: str, inputs: Mapping[str, Any], at_most: int) -> Answer:
        seconds: list[float] = []
        self.run(signature, inputs)  # the first run of a shape prepares the ones that follow
        while len(seconds) < at_most and sum(seconds) < TIMING_SECONDS:
            start = time.perf_counter()
            self.run(signature, inputs)
            seconds.append(time.perf_counter() - start)
        return "seconds", seconds


def main() -> None:
    # Answers get a descriptor of their own: whatever else prints to standard output goes to standard error.
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        process = _ModelProcess()
        _serve({"load": process.load, "run": process.run, "time": process.time}, sys.stdin.buffer, answers)


def _serve(actions: Mapping[str, Callable[..., Answer]], questions: BinaryIO, answers: BinaryIO) -> None:
    while True:
        try:
            action, *arguments = pickle.load(questions)
        except EOFError:
            return
        try:
            answer = actions[action](*arguments)
        except Exception as error:
            answer = "failed", f"{type(error).__name__}: {error}"
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    main()
