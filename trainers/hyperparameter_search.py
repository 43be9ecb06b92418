"""A search for the options of a trainer that suit the data best."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras_tuner import Objective
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.oracle import Oracle
from keras_tuner.engine.trial import Trial
from keras_tuner.errors import FailedTrialError
from keras_tuner.oracles import BayesianOptimizationOracle, HyperbandOracle, RandomSearchOracle
from pydantic import BaseModel, ValidationError
from tfx.v1.components import TunerFnResult

from trainers.first_line import first_line
from trainers.search_space import search_space
from trainers.tensorboard_log import write_tensorboard_log
from trainers.training_error import TrainingError
from trainers.trial_outcome import TrialOutcome
from trainers.trial_values import trial_values
from trainers.tuned_options import tuned_options
from trainers.tuner_options import DIRECTIONS, TunerOptions

TENSORBOARD = "tensorboard"
DEFAULT_TRIALS = 10
# More than any search has; keras-tuner ends a search after some failures that follow one another, this one goes on.
_NO_LIMIT = 9999

# The options of a trial, and a folder of its own -> what it came to.
Train = Callable[[Any, Path], TrialOutcome]


def hyperparameter_search(train: Train, trainer: BaseModel, tuner: TunerOptions, folder: str) -> TunerFnResult:
    """What TFX's Tuner runs.

    Args:
        train: trains a model and asks it.
        trainer: the options that are not searched for.
        tuner: how to search.
        folder: keras-tuner's state, from which a search that was killed goes on, and a TensorBoard log of each trial.
    """
    search = _Search(_oracle(tuner, trainer), train, trainer, Path(folder))
    return TunerFnResult(search, fit_kwargs={"verbose": 0})


def _oracle(tuner: TunerOptions, trainer: Any) -> Oracle:
    assert tuner.objective is not None
    common: dict[str, Any] = {
        "objective": Objective(tuner.objective, DIRECTIONS[tuner.objective]),
        "hyperparameters": search_space(tuner, trainer),
        "seed": tuner.seed + 1,  # 0 would stand for any
        "max_consecutive_failed_trials": _NO_LIMIT,
    }
    if tuner.method == "hyperband":
        oracle = HyperbandOracle(max_epochs=tuner.epochs or trainer.epochs, **common)
        oracle.max_trials = _NO_LIMIT  # TFX's Tuner asks for so many results
        return oracle
    kind = BayesianOptimizationOracle if tuner.method == "bayesian" else RandomSearchOracle
    return kind(max_trials=tuner.trials or DEFAULT_TRIALS, **common)


class _Search(BaseTuner):
    """keras-tuner's loop over trials that are no Keras models by themselves, but trainings by our options."""

    def __init__(self, oracle: Oracle, train: Train, trainer: BaseModel, folder: Path) -> None:
        super().__init__(oracle, directory=str(folder), project_name="search")
        self._train = train
        self._trainer = trainer
        self._logs = folder / TENSORBOARD

    def on_search_begin(self) -> None:
        # From here on a search that is killed can go on; keras-tuner writes this behind the first trial only.
        self.save()

    def run_trial(self, trial: Trial, **_: Any) -> dict[str, float]:
        values = trial_values(trial.hyperparameters.values)
        folder = Path(self.get_trial_dir(trial.trial_id)) / "training"
        log = self._logs / trial.trial_id
        shutil.rmtree(log, ignore_errors=True)  # of a trial that was killed
        folder.mkdir(exist_ok=True)
        curves: Mapping[str, Any] = {}
        metrics: dict[str, float] = {}
        failure: Exception | None = None
        try:
            outcome = self._train(tuned_options(self._trainer, values), folder)
            curves = outcome.curves
            metrics = _finite_metrics(outcome)
        except Exception as error:  # whatever stops one model need not stop another
            failure = error
        keras.utils.clear_session(free_memory=False)
        shutil.rmtree(folder)  # not where the process is stopped: a training may go on from there
        write_tensorboard_log(str(log), curves, values, metrics, failed=failure is not None)
        if failure:
            raise FailedTrialError(_reason(failure)) from failure
        return metrics


def _finite_metrics(outcome: TrialOutcome) -> dict[str, float]:
    losses = outcome.curves.get("loss", [])
    if not np.isfinite(outcome.probabilities).all() or not np.isfinite(losses).all():
        lost = next((epoch for epoch, loss in enumerate(losses, start=1) if not np.isfinite(loss)), len(losses))
        raise TrainingError(f"diverged: no finite numbers from epoch {lost} on")
    return outcome.metrics()


def _reason(error: Exception) -> str:
    if isinstance(error, TrainingError):
        return first_line(error)
    if isinstance(error, ValidationError):  # of options that do not go together
        return error.errors()[0]["msg"].removeprefix("Value error, ")
    return f"{type(error).__name__}: {first_line(error)}"
