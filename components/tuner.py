"""Tuner: TFX's, which also keeps what became of each trial."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial, TrialStatus
from tfx import components, types
from tfx.components.tuner import executor as tfx_tuner
from tfx.dsl.components.base import executor_spec
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils

from trainers.errors import TrainingError
from trainers.fitting import training_folder
from trainers.tuning import TENSORBOARD, trial_values

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


class Executor(tfx_tuner.Executor):
    """Runs a search for hyperparameters, and writes down what it found."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        results = artifact_utils.get_single_uri(output_dict[standard_component_specs.TUNER_RESULTS_KEY])
        inputs = sorted(artifact.uri for artifacts in input_dict.values() for artifact in artifacts)
        config = exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY]
        with training_folder(results, config, *inputs) as folder:
            tuner = tfx_tuner.search(input_dict, exec_properties, str(folder), print_tuning_summary=False)
            trials = _trials(tuner)
            if trials.best:
                tfx_tuner.write_best_hyperparameters(tuner, output_dict)
                write_trials(results, trials)
                _copy(folder / TENSORBOARD, f"{results}/{TENSORBOARD}")
        # Not inside: a search in which all failed begins anew.
        if not trials.best:
            raise TrainingError(_sentence(trials))


def _trials(tuner: BaseTuner) -> Trials:
    objective = tuner.oracle.objective
    return Trials(
        objective=objective.name,
        direction=objective.direction,
        trials=tuple(_finished(trial) for _, trial in sorted(tuner.oracle.trials.items())),
    )


def _finished(trial: Trial) -> FinishedTrial:
    completed = trial.status == TrialStatus.COMPLETED
    metrics = {name: trial.metrics.get_best_value(name) for name in trial.metrics.metrics} if completed else {}
    failure = "" if completed else (trial.message or trial.status).strip().rpartition("\n")[2].partition(": ")[2]
    return FinishedTrial(trial.trial_id, trial_values(trial.hyperparameters.values), metrics, failure)


def _copy(source: Path, target: str) -> None:
    for file in source.rglob("*"):
        if file.is_file():
            io_utils.copy_file(str(file), f"{target}/{file.relative_to(source)}")


def _sentence(trials: Trials) -> str:
    failures = {trial.failure: trial.number for trial in reversed(trials.trials)}
    reasons = "; ".join(f"trial {number}: {failure}" for failure, number in reversed(failures.items()))
    return (
        f"none of the tuner's {len(trials.trials)} trials came to an end: {reasons}; "
        "mend that, or give tuner.space other values"
    )


class Tuner(components.Tuner):
    """TFX's Tuner with another executor.

    A search that was killed goes on where it was, with the same data, config and code. `tuner_results` holds, besides
    TFX's results, a TensorBoard log of each trial, and those trials that failed, see trials.py. A search in which all
    failed ends in a TrainingError.
    """

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
