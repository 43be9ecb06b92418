"""Trials of a search for hyperparameters, and what became of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tfx.utils import io_utils

TRIALS_FILE = "trials.json"


@dataclass(frozen=True)
class FinishedTrial:
    """A trial.

    Attributes:
        number: what it is called, in TensorBoard too.
        values: option of the trainer -> its value.
        metrics: on what was held out, {} where it failed.
        failure: why it failed, "" where it did not.
    """

    number: str
    values: Mapping[str, Any]
    metrics: Mapping[str, float]
    failure: str


@dataclass(frozen=True)
class Trials:
    """A search.

    Attributes:
        objective: the metric that trials were compared by.
        direction: which is better.
        trials: in the order in which they began.
    """

    objective: str
    direction: Literal["min", "max"]
    trials: tuple[FinishedTrial, ...]

    @property
    def ranked(self) -> list[FinishedTrial]:
        """The best first, of equals the earlier; then those that failed."""
        sign = -1 if self.direction == "max" else 1
        completed = [trial for trial in self.trials if not trial.failure]
        ordered = sorted(completed, key=lambda trial: sign * trial.metrics[self.objective])
        return ordered + [trial for trial in self.trials if trial.failure]

    @property
    def best(self) -> FinishedTrial | None:
        """The one whose values the Trainer uses; None where all failed."""
        return next((trial for trial in self.ranked if not trial.failure), None)


def write_trials(folder: str, trials: Trials) -> None:
    """Write them into a folder, that of the artifact `tuner_results`."""
    io_utils.write_string_file(f"{folder}/{TRIALS_FILE}", json.dumps(asdict(trials), indent=2))


def read_trials(folder: str) -> Trials:
    """Read what `write_trials` wrote."""
    content = json.loads(io_utils.read_string_file(f"{folder}/{TRIALS_FILE}"))
    return Trials(
        content["objective"], content["direction"], tuple(FinishedTrial(**trial) for trial in content["trials"])
    )
