"""Statistics of a classifier's predictions: confidence intervals, metrics, calibration, thresholds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import tensorflow as tf
from pydantic import TypeAdapter
from scipy import stats

from components.evaluator.classification import MEASURED, NUMBERS_EACH, slice_statistics, sums_of
from components.evaluator.classification import interval as metric_interval
from serving.answers import HALF_OF_EVAL, OUT_OF_FOLD, Decision, UnknownRule, calibrates
from trainers.roc import area_under_roc

# Beyond this, drawing examples again for the area of each class costs more than it tells.
_CLASSES_WITH_AREAS = 20


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % confidence interval."""

    value: float
    low: float
    high: float


def wilson_interval(count: float, total: float) -> Interval | None:
    """The share `count / total` with Wilson's 95 % interval; None where `total` is 0.

    It stays within 0 and 1 and holds for small totals too.

    Source: scipy.stats.binomtest; Wilson, Probable inference, JASA 1927.
    """
    if not total:
        return None
    share = count / total
    found = stats.binomtest(round(count), round(total)).proportion_ci(confidence_level=0.95, method="wilson")
    return Interval(share, min(float(found.low), share), max(float(found.high), share))


@dataclass(frozen=True)
class EvalPredictions:
    """One row for each example with a usable label.

    Attributes:
        ids: see serving.reference_predictions.
        labels: the names of the classes, in the order of the probabilities.
        truth: int64 [n], the class of each example.
        probabilities: float32 [n, classes], the new model's.
        baseline: float32 [n, classes], those of the model served before; None where there is none to compare with.
        weights: float64 [n], how much each example counts; None where all count the same.
        decision: which label the new model answers, where it is not the most probable one.
        baseline_decision: likewise the model served before.
        drawn_of: of how many examples these were drawn by chance; None where they are all.
    """

    ids: Sequence[str]
    labels: Sequence[str]
    truth: np.ndarray
    probabilities: np.ndarray
    baseline: np.ndarray | None = None
    weights: np.ndarray | None = None
    decision: Decision | None = None
    baseline_decision: Decision | None = None
    drawn_of: int | None = None

    @cached_property
    def predicted(self) -> np.ndarray:
        """int64 [n], the class that is answered."""
        return self._answered(self.probabilities, self.decision)

    @cached_property
    def baseline_predicted(self) -> np.ndarray | None:
        """int64 [n], the class that the model served before answers."""
        return None if self.baseline is None else self._answered(self.baseline, self.baseline_decision)

    def _answered(self, probabilities: np.ndarray, decision: Decision | None) -> np.ndarray:
        if decision is None or decision.label not in self.labels:
            return probabilities.argmax(axis=1)
        return decision.numbers(probabilities, self.labels)


def confusion_matrix(predictions: EvalPredictions) -> np.ndarray:
    """int64 [classes, classes]: how many examples of the class of the row are named as the class of the column."""
    classes = len(predictions.labels)
    pairs = predictions.truth * classes + predictions.predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


@dataclass(frozen=True)
class ClassResult:
    """Of one class.

    Attributes:
        label: its name.
        examples: how many examples are of it.
        recall: the share of them that the model names so; None without examples.
        precision: the share of those that the model names so which are; None where it names none so.
        baseline_recall: the recall of the model served before.
    """

    label: str
    examples: int
    recall: Interval | None
    precision: Interval | None
    baseline_recall: Interval | None


def class_results(predictions: EvalPredictions) -> list[ClassResult]:
    """A result for each class, in the order of the labels."""
    return [_result(predictions, number, label) for number, label in enumerate(predictions.labels)]


def _result(predictions: EvalPredictions, number: int, label: str) -> ClassResult:
    is_class = predictions.truth == number
    named_so = predictions.predicted == number
    hits, examples = int((is_class & named_so).sum()), int(is_class.sum())
    baseline = None
    if predictions.baseline_predicted is not None:
        baseline_hits = int(np.sum(is_class & (predictions.baseline_predicted == number)))
        baseline = wilson_interval(baseline_hits, examples)
    return ClassResult(
        label=label,
        examples=examples,
        recall=wilson_interval(hits, examples),
        precision=wilson_interval(hits, int(named_so.sum())),
        baseline_recall=baseline,
    )


@dataclass(frozen=True)
class UnknownResult:
    """What came of the label for unknown, on examples that it was not calibrated on.

    Attributes:
        rule: when it is answered.
        examples: how many were measured.
        unknown: the share that is answered with it.
        accuracy: of the labels of the others; None where there are none.
        wrong: the share of all that is answered with a wrong label.
        coverage: the share whose label set holds the true label; None where no coverage was asked for.
        guarantee: the sentence that holds for new rows; "" where no coverage was asked for.
    """

    rule: UnknownRule
    examples: int
    unknown: Interval
    accuracy: Interval | None
    wrong: Interval
    coverage: Interval | None
    guarantee: str


_GUARANTEES = {
    HALF_OF_EVAL: (
        "For a new row from the source of these, the true label is in the label set with a probability of at least "
        "{coverage:g} (split conformal prediction), so at most {rest:.3g} of all rows get a wrong label."
    ),
    OUT_OF_FOLD: (
        "For a new row from the source of these, the true label is in the label set with a probability of at least "
        "{coverage:g} (split conformal prediction), as far as the models of the folds answer as the served one does, "
        "so at most {rest:.3g} of all rows get a wrong label."
    ),
}


def unknown_result(predictions: EvalPredictions, rule: UnknownRule) -> UnknownResult | None:
    """Measure a rule on the eval split, or on the half that it was not calibrated on; None where that has no example.

    Shares have Wilson's 95 % intervals.
    """
    measured = np.array([rule.calibrated_on != HALF_OF_EVAL or not calibrates(id_) for id_ in predictions.ids])
    truth, chosen = predictions.truth[measured], predictions.predicted[measured]
    probabilities = tf.constant(predictions.probabilities[measured], tf.float32)
    unknown = rule.replaces(probabilities, tf.constant(chosen)).numpy()
    covered = rule.label_sets(probabilities).numpy()[np.arange(len(truth)), truth]
    right, total = chosen == truth, len(truth)
    shares = [wilson_interval(int(one.sum()), total) for one in (unknown, ~unknown & ~right, covered)]
    share, wrong, coverage = shares
    if share is None or wrong is None:
        return None
    asked = rule.coverage
    return UnknownResult(
        rule=rule,
        examples=total,
        unknown=share,
        accuracy=wilson_interval(int((right & ~unknown).sum()), int((~unknown).sum())),
        wrong=wrong,
        coverage=coverage if asked is not None else None,
        guarantee=_GUARANTEES[rule.calibrated_on].format(coverage=asked, rest=1 - asked) if asked is not None else "",
    )


BINS = 10


@dataclass(frozen=True)
class CalibrationBin:
    """The examples whose best label has a probability in a tenth.

    Attributes:
        low: where the tenth begins.
        high: where it ends.
        examples: how many there are.
        confidence: the mean probability of the best label.
        accuracy: the share for which that label is right.
    """

    low: float
    high: float
    examples: int
    confidence: float
    accuracy: Interval


@dataclass(frozen=True)
class Calibration:
    """The bins that hold examples, and the expected calibration error: the mean distance between the two shares."""

    bins: tuple[CalibrationBin, ...]
    expected_error: float


def calibration(predictions: EvalPredictions) -> Calibration:
    """Compare how sure the model is of its best label with how often that is right."""
    confidence = predictions.probabilities.max(axis=1).astype(np.float64)
    correct = predictions.probabilities.argmax(axis=1) == predictions.truth
    numbers = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = []
    for number in np.unique(numbers).tolist():
        chosen = numbers == number
        share = wilson_interval(int(correct[chosen].sum()), int(chosen.sum()))
        if share is not None:
            mean = float(confidence[chosen].mean())
            bins.append(CalibrationBin(number / BINS, (number + 1) / BINS, int(chosen.sum()), mean, share))
    examples = len(confidence)
    error = sum(one.examples / examples * abs(one.accuracy.value - one.confidence) for one in bins)
    return Calibration(tuple(bins), float(error))


@dataclass(frozen=True)
class ThresholdCurve:
    """A point for each distinct score, the highest threshold first, and one for a threshold above all scores.

    Attributes:
        false_positive_rate: float64 [points].
        recall: float64 [points], the true positive rate.
        precision: float64 [points]; 1 where nothing is named positive.
        average_precision: the mean of the precision, weighted by the steps of the recall.
    """

    false_positive_rate: np.ndarray
    recall: np.ndarray
    precision: np.ndarray
    average_precision: float


def threshold_curve(positive: np.ndarray, scores: np.ndarray) -> ThresholdCurve | None:
    """The ROC and the precision-recall curve; None where all examples are of one kind.

    Args:
        positive: bool [n].
        scores: float [n].
    """
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return None
    order = np.argsort(-scores, kind="stable")
    ends = np.concatenate([np.flatnonzero(np.diff(scores[order])), [len(scores) - 1]])
    hits = np.concatenate([[0], np.cumsum(positive[order])[ends]])
    named = np.concatenate([[0], ends + 1])
    recall = hits / positives
    precision = np.divide(hits, named, out=np.ones(len(hits)), where=named > 0)
    return ThresholdCurve(
        false_positive_rate=(named - hits) / negatives,
        recall=recall,
        precision=precision,
        average_precision=float(np.sum(np.diff(recall) * precision[1:])),
    )


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

    Accuracy has Wilson's interval where all examples count the same; the others, and every change, the percentiles of
    1,000 bootstrap resamples of the eval split (the same for both models).
    """
    candidate = _Model.of(predictions.truth, predictions.probabilities, predictions.predicted, predictions.weights)
    baseline = None
    if predictions.baseline is not None and predictions.baseline_predicted is not None:
        baseline = _Model.of(
            predictions.truth, predictions.baseline, predictions.baseline_predicted, predictions.weights
        )
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
    weights: np.ndarray | None

    @classmethod
    def of(
        cls, truth: np.ndarray, probabilities: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None
    ) -> _Model:
        rows = np.arange(len(truth))
        normalized = probabilities / np.maximum(probabilities.sum(axis=1, keepdims=True), SMALLEST_PROBABILITY)
        of_truth = np.clip(normalized[rows, truth], SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
        return cls(truth, probabilities, predicted == truth, -np.log(of_truth), weights)

    def metrics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Metric -> values [resamples], of examples that are drawn `weights` [resamples, n] times."""
        if self.weights is not None:
            weights = weights * self.weights
        total = weights.sum(axis=1)
        found = {"accuracy": weights @ self.correct / total, "cross_entropy": weights @ self.loss / total}
        classes = self.probabilities.shape[1]
        if classes <= _CLASSES_WITH_AREAS:
            chosen = [1] if classes == 2 else range(classes)
            areas = np.array([area_under_roc(self.truth == c, self.probabilities[:, c], weights) for c in chosen])
            # The mean of those that the examples have, as the Evaluator's.
            told = np.isfinite(areas)
            with np.errstate(invalid="ignore"):
                found["auc"] = np.where(told, areas, 0).sum(axis=0) / told.sum(axis=0)
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
    if name == "accuracy" and model.weights is None:
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


@dataclass(frozen=True)
class LiveFigure:
    """How good a model was on rows whose labels came later.

    Attributes:
        version: that answered.
        day: in UTC, as 2026-01-31; "" for all days.
        slice: such as "sex = f"; "" for all rows.
        rows: how many.
        accuracy: of the labels that were answered.
        auc: of the rows whose answers hold probabilities; None without both kinds of them. Likewise `ece`, the expected
            calibration error.
    """

    version: int
    day: str
    slice: str
    rows: int
    accuracy: Interval | None
    auc: Interval | None
    ece: Interval | None


_LIVE_FILE = "truth.json"


@dataclass(frozen=True)
class LiveFigures:
    """What `ingraph truth` found last.

    Attributes:
        found_at: when, in ISO 8601.
        served: the version that was served then, or the newest that had labels.
        figures: of each version, of its days, and of its slices.
        calibration: of that version; None where no answer of it holds probabilities.
        verdict: whether it fell below a bound, as a sentence; "" where none was asked for.
    """

    found_at: str
    served: int
    figures: tuple[LiveFigure, ...]
    calibration: Calibration | None
    verdict: str

    def keep(self, folder: Path) -> None:
        """Keep them for reports, beside the runs of the pipeline; where none are in the folder, nothing is done."""
        if folder.is_dir():
            part = folder / f"{_LIVE_FILE}.{os.getpid()}.part"
            part.write_bytes(TypeAdapter(LiveFigures).dump_json(self))
            part.replace(folder / _LIVE_FILE)

    @classmethod
    def kept(cls, folder: Path) -> LiveFigures | None:
        """Those of the folder; None where there are none, or none of use."""
        try:
            return TypeAdapter(LiveFigures).validate_json((folder / _LIVE_FILE).read_bytes())
        except (OSError, ValueError):  # of another version, or damaged: `ingraph truth` makes them anew
            return None


def live_figure(
    version: int, day: str, slice_name: str, right: np.ndarray, truth: np.ndarray, probabilities: np.ndarray
) -> LiveFigure:
    """Work out the figures of rows.

    Args:
        version: see LiveFigure; likewise `day` and `slice_name`.
        right: bool [n], whether the label that was answered is the true one.
        truth: int64 [n], the class; -1 for a label that the model does not know.
        probabilities: float32 [n, classes]; NaN where the answer holds none.
    """
    known = (truth >= 0) & np.isfinite(probabilities).all(axis=1)
    truth, probabilities = truth[known], probabilities[known]
    auc = ece = None
    if len(truth):
        sums = sums_of(truth, probabilities, np.ones(len(truth)))
        start = 1 + NUMBERS_EACH * MEASURED.index("ece")
        error, spread, by_chance = (float(number) for number in slice_statistics(sums)[start : start + NUMBERS_EACH])
        ece = Interval(error, *metric_interval("ece", error, spread, 0.95, by_chance))
        classes = probabilities.shape[1]
        counts = np.bincount(truth, minlength=classes).astype(np.float64)
        if 2 <= classes <= _CLASSES_WITH_AREAS and (counts > 0).sum() > 1:
            chosen = [1] if classes == 2 else np.flatnonzero(counts)
            area = float(np.mean([area_under_roc(truth == one, probabilities[:, one])[0] for one in chosen]))
            auc = Interval(area, *metric_interval("auc", area, 0.0, 0.95, counts))
    return LiveFigure(version, day, slice_name, len(right), wilson_interval(int(right.sum()), len(right)), auc, ece)


def live_calibration(truth: np.ndarray, probabilities: np.ndarray) -> Calibration | None:
    """That of rows whose answers hold probabilities, see live_figure; None where none does."""
    known = (truth >= 0) & np.isfinite(probabilities).all(axis=1)
    if not known.any():
        return None
    labels = [str(number) for number in range(probabilities.shape[1])]
    return calibration(EvalPredictions([], labels, truth[known], probabilities[known]))


# A fall is looked for in so many labelled rows, and begun anew with the next ones.
FALL_ROWS = 500
FALL_LEVEL = 0.05
# How late a look spends of that level: (rows / FALL_ROWS) to this power. With 10, as many falls are found, to a point,
# as by one look at the end, and no test of so many rows finds more than that.
_SPENDING = 10


@cache
def fall_limits(bound: float, rows: int = FALL_ROWS, level: float = FALL_LEVEL) -> tuple[int, ...]:
    """After each of `rows` rows, from how many wrong ones on the share of right ones is below `bound` with confidence.

    A model whose share is `bound` or above reaches one of these limits with a probability of at most `level`, however
    often one looks: the binomial distribution of those that have not reached one yet is followed row by row.

    Source: Lan and DeMets, Discrete sequential boundaries for clinical trials, Biometrika 70 (1983); the spending
        function is that of Kim and DeMets, Biometrika 74 (1987).
    """
    going_on = np.zeros(rows + 2)
    going_on[0] = 1.0
    spent, limits = 0.0, []
    for number in range(1, rows + 1):
        going_on[1:] = going_on[1:] * bound + going_on[:-1] * (1 - bound)
        going_on[0] *= bound
        allowed = level * (number / rows) ** _SPENDING - spent
        reached = going_on[::-1].cumsum()[::-1]  # the probability of so many wrong ones, or more
        limit = int(np.searchsorted(-reached, -allowed))
        limits.append(limit)
        spent += float(reached[limit]) if limit < len(reached) else 0.0
        going_on[limit:] = 0.0
    return tuple(limits)


def find_fall(right: np.ndarray, bound: float) -> int | None:
    """After how many of the rows their share of right ones was known to be below `bound`; None where it is not.

    Rows come in blocks of FALL_ROWS, each of which raises a false alarm in at most FALL_LEVEL of cases; the last block
    that is full and the one that is under way count.

    Args:
        right: bool [n], in the order in which their labels came.
        bound: between 0 and 1.
    """
    limits = np.array(fall_limits(bound))
    first = max(len(right) // FALL_ROWS - 1, 0) * FALL_ROWS
    for start in range(first, len(right), FALL_ROWS):
        wrong = (~right[start : start + FALL_ROWS]).cumsum()
        beyond = np.flatnonzero(wrong >= limits[: len(wrong)])
        if len(beyond):
            return start + int(beyond[0]) + 1
    return None
