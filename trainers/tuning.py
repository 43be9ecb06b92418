"""Hyperparameter tuning by keras-tuner: where it looks, how trials are told apart, and what it found."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import tensorflow as tf
from keras_tuner import Objective
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.oracle import Oracle
from keras_tuner.engine.trial import Trial
from keras_tuner.errors import FailedTrialError
from keras_tuner.oracles import BayesianOptimizationOracle, HyperbandOracle, RandomSearchOracle
from pydantic import BaseModel, ValidationError
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from trainers.artifacts import write_tensorboard_log
from trainers.errors import TrainingError, first_line
from trainers.options import DIRECTIONS, TunerOptions, option_type, tuned_options
from trainers.roc import area_under_roc
from trainers.splits import TransformedSplit

# What keras-tuner's Hyperband adds to the values of a trial.
_HYPERBAND, _EPOCHS = "tuner/", "tuner/epochs"


def encoded(values: Sequence[Any]) -> list[Any]:
    """What stands for values in keras-tuner, which takes numbers, all of one type, and texts: JSON for all else."""
    kinds = {type(value) for value in values}
    if kinds <= {int, float} and len(kinds) == 2:
        return [float(value) for value in values]
    return list(values) if len(kinds) == 1 and kinds <= {int, float, bool} else [json.dumps(value) for value in values]


def trial_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a trial by name; for hyperband with the epochs that the trial had."""
    options = {
        name: json.loads(value) if isinstance(value, str) else value
        for name, value in values.items()
        if not name.startswith(_HYPERBAND)
    }
    return options | ({"epochs": values[_EPOCHS]} if _EPOCHS in values else {})


# Below it, cross-entropy would be infinite for a single wrong answer.
SMALLEST_PROBABILITY = 1e-7


@dataclass(frozen=True)
class TrialOutcome:
    """A trained model, by its answers to examples that it did not learn from.

    Attributes:
        curves: what Keras recorded of each epoch, by name.
        labels: int64 [n], the number of each example's label.
        probabilities: float32 [n, classes].
        weights: float64 [n], how much each example counts; None where all count the same.
    """

    curves: Mapping[str, Sequence[float]]
    labels: np.ndarray
    probabilities: np.ndarray
    weights: np.ndarray | None = None

    def metrics(self) -> dict[str, float]:
        """`auc`, for more than two classes the mean of each against the others; `accuracy`; `cross_entropy`."""
        of_labels = self.probabilities[np.arange(len(self.labels)), self.labels]
        classes = range(1, 2) if self.probabilities.shape[1] == 2 else np.unique(self.labels)
        weights = None if self.weights is None else self.weights[None]
        areas = [area_under_roc(self.labels == number, self.probabilities[:, number], weights) for number in classes]
        right = self.probabilities.argmax(axis=1) == self.labels
        losses = -np.log(np.maximum(of_labels, SMALLEST_PROBABILITY))
        return {
            "auc": float(np.mean(areas)),
            "accuracy": float(np.average(right, weights=self.weights)),
            "cross_entropy": float(np.average(losses, weights=self.weights)),
        }


def search_space(tuner: TunerOptions, trainer: BaseModel) -> keras_tuner.HyperParameters:
    """The candidates of each option, as keras-tuner has them."""
    space = keras_tuner.HyperParameters()
    for name, candidates in tuner.space.items():
        if candidates.values is not None:
            space.Choice(name, encoded(candidates.values))
        else:
            kind = option_type(trainer, name)
            number = space.Int if kind is int else space.Float
            step = kind(candidates.step) if candidates.step else None
            number(name, kind(candidates.min), kind(candidates.max), step=step, sampling=candidates.sampling)
    return space


_BUCKETS = 1000


def held_out_for_tuning(examples: tf.Tensor | Sequence[str], options: TunerOptions) -> tf.Tensor:
    """bool, of the same shape: whether trials do without an example, and are compared by it.

    It depends on the example and the seed alone, so that equal examples are on one side.

    Args:
        examples: string, the examples themselves or their ids.
        options: the share and the seed.
    """
    share = tf.constant(round(options.held_out_share * _BUCKETS), tf.int64)
    return tf.strings.to_hash_bucket_strong(examples, _BUCKETS, key=[options.seed, 0]) < share


def check_held_out(train: np.ndarray, held_out: np.ndarray, options: TunerOptions) -> None:
    """See that trials have something to learn from, and to be compared by.

    Args:
        train: int64 [n], the labels of what they learn from.
        held_out: int64 [m], of what they are compared by.
        options: the share.

    Raises:
        TrainingError: one of both has examples of one label only, or none.
    """
    for what, labels in (("held out of the training split for the tuner", held_out), ("left to learn from", train)):
        if len(np.unique(labels)) < 2:
            raise TrainingError(
                f"tuner.held_out_share is {options.held_out_share}: of {len(train) + len(held_out)} examples, "
                f"{len(labels)} are {what}, and not two labels among them; change the share, or give more data"
            )


def tuning_split(train: TransformedSplit, options: TunerOptions) -> tuple[TransformedSplit, TransformedSplit]:
    """What trials learn from, and what they are compared by.

    Raises:
        TrainingError: one of both has not two labels.
    """
    held_out = held_out_for_tuning(tf.constant(train.ids, tf.string), options).numpy()
    check_held_out(train.labels[~held_out], train.labels[held_out], options)
    return rows_of(train, np.flatnonzero(~held_out)), rows_of(train, np.flatnonzero(held_out))


def rows_of(split: TransformedSplit, rows: np.ndarray) -> TransformedSplit:
    """Some rows of a split, by their numbers."""
    return replace(
        split,
        ids=[split.ids[row] for row in rows],
        features={
            name: tf.gather(column, rows) if isinstance(column, tf.RaggedTensor) else column[rows]
            for name, column in split.features.items()
        },
        labels=split.labels[rows],
        weights=None if split.weights is None else split.weights[rows],
    )


@dataclass(frozen=True)
class BestHyperparameters:
    """What the Trainer is to use.

    Attributes:
        values: option -> value, {} where no search was made.
        code_fingerprint: of the config, the code and these values, which make the model.
    """

    code_fingerprint: str
    values: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, fn_args: FnArgs) -> BestHyperparameters:
        """Those that TFX gives a Trainer: what keras-tuner's HyperParameters.get_config gives, or None."""
        code_fingerprint = fn_args.custom_config["code_fingerprint"]
        if not fn_args.hyperparameters:
            return cls(code_fingerprint)
        values = trial_values(fn_args.hyperparameters["values"])
        digest = hashlib.sha256(f"{code_fingerprint}\0{json.dumps(values, sort_keys=True)}".encode())
        return cls(digest.hexdigest(), values)


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
