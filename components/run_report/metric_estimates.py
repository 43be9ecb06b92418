"""The metrics with their confidence intervals, recomputed from the predictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from components.evaluator.eval_config import CLASSES_WITH_CURVES
from components.run_report.eval_predictions import EvalPredictions
from components.run_report.interval import Interval
from components.run_report.weighted_auc import weighted_auc
from components.run_report.wilson_interval import wilson_interval

RESAMPLES = 1000
SMALLEST_PROBABILITY = 1e-7  # Keras' own, so that cross-entropy is the Evaluator's
_NUMBERS_IN_MEMORY = 4_000_000


@dataclass(frozen=True)
class MetricEstimate:
    """A metric of the new model, of the model served before, and the change between them.

    Attributes:
        name: `accuracy`, `auc` or `cross_entropy`.
        candidate: the new model's.
        baseline: the served model's on the same examples; None where there is none. Likewise `change`, whose interval
            is of the difference on the same resamples, so much narrower than the two intervals suggest.
    """

    name: str
    candidate: Interval
    baseline: Interval | None = None
    change: Interval | None = None


def metric_estimates(predictions: EvalPredictions, seed: int = 0) -> list[MetricEstimate]:
    """Accuracy, AUC (up to 20 classes) and cross-entropy.

    Accuracy has Wilson's interval; the others, and every change, the percentiles of 1,000 bootstrap resamples of the
    eval split (the same for both models).
    """
    candidate = _Model.of(predictions.truth, predictions.probabilities)
    baseline = None if predictions.baseline is None else _Model.of(predictions.truth, predictions.baseline)
    everything = np.ones([1, len(predictions.truth)], np.float32)
    values = candidate.metrics(everything)
    resampled = _resampled([model for model in (candidate, baseline) if model], len(predictions.truth), seed)
    estimates = []
    for name, (value,) in values.items():
        if baseline is None:
            estimates.append(MetricEstimate(name, _interval(name, value, resampled[0][name], candidate)))
            continue
        (before,) = baseline.metrics(everything)[name]
        change = _percentiles(value - before, resampled[0][name] - resampled[1][name])
        estimates.append(
            MetricEstimate(
                name,
                _interval(name, value, resampled[0][name], candidate),
                _interval(name, before, resampled[1][name], baseline),
                change,
            )
        )
    return estimates


@dataclass(frozen=True)
class _Model:
    """A model's probabilities, with what each example adds to a metric."""

    truth: np.ndarray
    probabilities: np.ndarray
    correct: np.ndarray
    loss: np.ndarray

    @classmethod
    def of(cls, truth: np.ndarray, probabilities: np.ndarray) -> _Model:
        rows = np.arange(len(truth))
        normalized = probabilities / np.maximum(probabilities.sum(axis=1, keepdims=True), SMALLEST_PROBABILITY)
        of_truth = np.clip(normalized[rows, truth], SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
        return cls(truth, probabilities, probabilities.argmax(axis=1) == truth, -np.log(of_truth))

    def metrics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Metric -> values [resamples], of examples that count `weights` [resamples, n] times."""
        total = weights.sum(axis=1)
        found = {"accuracy": weights @ self.correct / total, "cross_entropy": weights @ self.loss / total}
        classes = self.probabilities.shape[1]
        if classes <= CLASSES_WITH_CURVES:
            chosen = [1] if classes == 2 else range(classes)
            areas = [weighted_auc(self.truth == c, self.probabilities[:, c], weights) for c in chosen]
            found["auc"] = np.mean(areas, axis=0)
        return found


def _resampled(models: list[_Model], examples: int, seed: int) -> list[dict[str, np.ndarray]]:
    parts = [[model.metrics(weights) for weights in _weights(examples, seed)] for model in models]
    return [{name: np.concatenate([part[name] for part in model]) for name in model[0]} for model in parts]


def _weights(examples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each example is drawn in each resample, a few resamples at a time."""
    source = np.random.default_rng(seed)
    at_once = max(1, _NUMBERS_IN_MEMORY // examples)
    for start in range(0, RESAMPLES, at_once):
        yield np.stack(
            [
                np.bincount(source.integers(0, examples, examples), minlength=examples).astype(np.float32)
                for _ in range(min(at_once, RESAMPLES - start))
            ]
        )


def _interval(name: str, value: float, resampled: np.ndarray, model: _Model) -> Interval:
    if name == "accuracy":
        share = wilson_interval(int(model.correct.sum()), len(model.correct))
        if share is not None:
            return share
    return _percentiles(value, resampled)


def _percentiles(value: float, resampled: np.ndarray) -> Interval:
    usable = resampled[np.isfinite(resampled)]
    if not len(usable):
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.percentile(usable, [2.5, 97.5])
    return Interval(float(value), float(low), float(high))
