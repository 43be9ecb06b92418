"""Metrics of a classifier's labels and probabilities that TFMA has not, or not by the label that is served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import apache_beam as beam
import numpy as np
from scipy import stats
from scipy.special import expit, logit
from tensorflow_model_analysis.metrics import metric_types, metric_util

from serving.answers import decided_numbers
from trainers.roc import wilson_interval

# Average precision and areas come from histograms of labels' logits: rare labels have small probabilities.
_SCORES, _LARGEST_LOGIT = 10_000, 16.0
_SCORES_OF_ALL_LABELS = 200_000
_CALIBRATION_BINS = 15
_SMALLEST_PROBABILITY = 1e-7
_DRAWS = 1000
STATISTICS = "statistics"
# Model -> the number of the label of its decision, and the threshold, see serving.answers.Decision.
Decisions: TypeAlias = Mapping[str, Sequence[float]]
# The order of the statistics of intervals, see slice_statistics.
MEASURED = ("accuracy", "precision", "recall", "specificity", "f1", "pr_auc", "cross_entropy", "ece")

Sums: TypeAlias = dict[str, np.ndarray]
Accumulator: TypeAlias = tuple[list[tuple[int, np.ndarray, float]], Sums]


class ClassifierMetric(metric_types.Metric):
    """`auc`, one of MEASURED, or STATISTICS, an array for intervals. Labels are those that are served.

    Args:
        name: which one.
        positive: the number of the label that precision, recall, f1, specificity and pr_auc are about; -1 for none.
        decisions: of the models that do not always answer the most probable label; "" is the only one.
    """

    def __init__(self, name: str, positive: int = -1, decisions: Decisions | None = None) -> None:
        super().__init__(
            metric_util.merge_per_key_computations(_computations),
            name=name,
            positive=positive,
            decisions=dict(decisions or {}),
        )


metric_types.register_metric(ClassifierMetric)


def _computations(
    name: str,
    positive: int,
    decisions: Decisions,
    model_name: str = "",
    output_name: str = "",
    example_weighted: bool = False,
) -> Any:
    """The sums, which all metrics of a model share, and what becomes of them."""
    of_model = {"model_name": model_name, "output_name": output_name, "example_weighted": example_weighted}
    key = metric_types.MetricKey(name=name, **of_model)
    sums = metric_types.MetricKey(name="_classifier_sums", **of_model)
    decision = decisions.get(model_name)

    def result(metrics: Mapping[metric_types.MetricKey, Any]) -> dict[metric_types.MetricKey, Any]:
        found: Sums = metrics[sums]
        return {key: slice_statistics(found) if name == STATISTICS else _value(name, found)}

    return [
        metric_types.MetricComputation(keys=[sums], preprocessors=None, combiner=_SumRows(sums, positive, decision)),
        metric_types.DerivedMetricComputation(keys=[key], result=result),
    ]


_ROWS_AT_ONCE = 1000


class _SumRows(beam.CombineFn):
    """Sums over rows, some of which wait to be summed together."""

    def __init__(
        self,
        key: metric_types.MetricKey,
        positive: int,
        decision: Sequence[float] | None,
    ) -> None:
        super().__init__()
        self._key, self._positive, self._decision = key, positive, decision

    def create_accumulator(self) -> Accumulator:
        return [], {}

    def add_input(self, accumulator: Accumulator, element: metric_types.StandardMetricInputs) -> Accumulator:
        # Without TFMA's to_label_prediction_example_weight, which takes five times as long.
        rows, sums = accumulator
        weight = self._of_model(element.example_weight) if self._key.example_weighted else 1.0
        label, probabilities = self._of_model(element.label), self._of_model(element.prediction)
        rows.append((int(np.ravel(label)[0]), np.ravel(probabilities), float(np.ravel(weight)[0])))
        return self._summed(accumulator) if len(rows) >= _ROWS_AT_ONCE else (rows, sums)

    def _of_model(self, value: Any) -> Any:
        """TFMA has a value for each model where there are two."""
        return value[self._key.model_name] if isinstance(value, Mapping) else value

    def merge_accumulators(self, accumulators: Any) -> Accumulator:
        merged: Sums = {}
        for accumulator in accumulators:
            merged = _added(merged, self._summed(accumulator)[1])
        return [], merged

    def compact(self, accumulator: Accumulator) -> Accumulator:
        return self._summed(accumulator)

    def extract_output(self, accumulator: Accumulator) -> dict[metric_types.MetricKey, Sums]:
        return {self._key: self._summed(accumulator)[1]}

    def _summed(self, accumulator: Accumulator) -> Accumulator:
        rows, sums = accumulator
        if not rows:
            return accumulator
        labels, probabilities, weights = (np.array(part) for part in zip(*rows, strict=True))
        found = sums_of(labels, probabilities, weights, self._positive, self._decision)
        return [], _added(sums, found | {"areas": _score_histograms(labels, probabilities, weights)})


def _added(first: Sums, second: Sums) -> Sums:
    return {name: first[name] + second[name] for name in second} if first and second else first or second


def sums_of(
    labels: np.ndarray,
    probabilities: np.ndarray,
    weights: np.ndarray,
    positive: int = -1,
    decision: Sequence[float] | None = None,
) -> Sums:
    """What all metrics and their intervals are worked out from.

    Args:
        labels: int64 [n].
        probabilities: float32 [n, classes].
        weights: float64 [n].
        positive: the number of the positive label, -1 for none.
        decision: the number of a label and its threshold, where the label is not always the most probable one.
    """
    rows, classes = probabilities.shape
    best = probabilities.argmax(axis=1)
    answered = best
    if decision is not None:
        answered = decided_numbers(probabilities, int(decision[0]), decision[1])
    of_both = np.stack([weights, weights**2], axis=1)
    normalized = probabilities / np.maximum(probabilities.sum(axis=1, keepdims=True), _SMALLEST_PROBABILITY)
    of_labels = normalized[np.arange(rows), labels].astype(np.float64)
    losses = -np.log(np.clip(of_labels, _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY))
    confidence = probabilities.max(axis=1).astype(np.float64)
    gaps = weights * ((best == labels) - confidence)
    bins = np.minimum((confidence * _CALIBRATION_BINS).astype(int), _CALIBRATION_BINS - 1)
    cells = 2 * (labels == positive) + (answered == positive)
    found = {
        "rows": np.array(rows, np.float64),
        "weights": of_both.sum(axis=0),
        "right": np.array((weights * (answered == labels)).sum()),
        "classes": np.stack([np.bincount(labels, part, minlength=classes) for part in of_both.T], axis=1),
        "cells": np.stack([np.bincount(cells, part, minlength=4) for part in of_both.T], axis=1),
        "losses": np.array([(weights * losses).sum(), (of_both[:, 1] * losses).sum(), ((weights * losses) ** 2).sum()]),
        "gaps": np.stack([np.bincount(bins, part, minlength=_CALIBRATION_BINS) for part in (gaps, gaps**2)]),
    }
    if positive >= 0:
        place = _places(probabilities[:, positive], _SCORES)
        is_positive = labels == positive
        found["scores"] = np.stack(
            [np.bincount(place[of], weights[of], minlength=_SCORES) for of in (is_positive, ~is_positive)]
        )
    return found


def _places(probabilities: np.ndarray, bins: int) -> np.ndarray:
    """int64, of the same shape: the bin of each probability by its logit."""
    scores = logit(np.clip(probabilities.astype(np.float64), 1e-12, 1 - 1e-12))
    return ((np.clip(scores / _LARGEST_LOGIT, -1, 1) + 1) / 2 * (bins - 1)).astype(int)


def _score_histograms(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64 [2, labels, bins]: for each label, how much rows with it weigh and those without, by its probability.

    Of two labels the second alone, for their curves mirror each other.
    """
    if probabilities.shape[1] == 2:
        probabilities, numbers = probabilities[:, 1:], labels - 1
    else:
        numbers = labels
    count = probabilities.shape[1]
    bins = max(100, min(_SCORES, _SCORES_OF_ALL_LABELS // count))
    places = _places(probabilities, bins) + bins * np.arange(count)
    own = np.flatnonzero(numbers >= 0)
    with_it = np.bincount(places[own, numbers[own]], weights[own], minlength=bins * count)
    all_rows = np.bincount(places.ravel(), np.repeat(weights, count), minlength=bins * count)
    return np.stack([with_it, np.maximum(all_rows - with_it, 0.0)]).reshape(2, count, bins)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")


def _value(name: str, sums: Sums) -> float:
    """The metric; NaN where there is nothing to work it out from."""
    total = float(sums["weights"][0]) if sums else 0.0
    if not total:
        return float("nan")
    # Of the negative and of the positive label, what is answered to be negative and positive.
    true_negatives, false_positives, false_negatives, true_positives = sums["cells"][:, 0].tolist()
    match name:
        case "auc":
            return _mean_area(sums["areas"])
        case "accuracy":
            return float(sums["right"] / total)
        case "cross_entropy":
            return float(sums["losses"][0] / total)
        case "ece":
            return float(np.abs(sums["gaps"][0]).sum() / total)
        case "precision":
            return _ratio(true_positives, true_positives + false_positives)
        case "recall":
            return _ratio(true_positives, true_positives + false_negatives)
        case "specificity":
            return _ratio(true_negatives, true_negatives + false_positives)
        case "f1":
            return _ratio(2 * true_positives, 2 * true_positives + false_positives + false_negatives)
        case _:
            return _average_precision(sums["scores"])


def _mean_area(histograms: np.ndarray) -> float:
    """The area under the ROC curve of one label against the rest, in the mean of those that some rows have, not all."""
    with_it, others = histograms
    below = others.cumsum(axis=1) - others
    pairs = with_it.sum(axis=1) * others.sum(axis=1)
    told = pairs > 0
    areas = (with_it * (below + others / 2)).sum(axis=1)[told] / pairs[told]
    return float(areas.mean()) if len(areas) else float("nan")


def _average_precision(scores: np.ndarray) -> float:
    """The mean of the precision, weighted by the steps of the recall, as scikit-learn's average_precision_score."""
    positives, negatives = scores[:, ::-1].cumsum(axis=1)
    if not positives[-1]:
        return float("nan")
    named = positives + negatives
    precision = np.divide(positives, named, out=np.zeros_like(named), where=named > 0)
    return float((np.diff(positives, prepend=0) * precision).sum() / positives[-1])


# Of each of MEASURED: its value, and the two numbers that `interval` takes.
NUMBERS_EACH = 3


def slice_statistics(sums: Sums) -> np.ndarray:
    """float64: the number of rows; NUMBERS_EACH for each of MEASURED; then of each label, how many rows of equal weight
    would tell as much as its rows do.

    Source of that number, (sum of weights)^2 / sum of squares: Kish, Survey Sampling (1965).
    """
    if not sums:
        return np.zeros(1)
    negatives, positives = sums["cells"][:2], sums["cells"][2:]
    answered = sums["cells"][1] + sums["cells"][3]
    either = sums["cells"][1] + positives.sum(axis=0)
    total, squares = sums["weights"]
    value = {name: _value(name, sums) for name in MEASURED if name != "pr_auc" or "scores" in sums}
    loss, count = value["cross_entropy"], _effective(sums["weights"])
    _, squared_once, squared_twice = sums["losses"]
    variance = max(squared_twice - 2 * loss * squared_once + loss**2 * squares, 0.0) * count / max(count - 1, 1e-9)
    noise = np.random.default_rng(0).normal(size=(_DRAWS, _CALIBRATION_BINS)) * np.sqrt(sums["gaps"][1])
    drawn, by_chance = (np.abs(gaps).sum(axis=1) for gaps in (sums["gaps"][0] + noise, noise))
    numbers = {
        "accuracy": (count, 0),
        "precision": (_effective(answered), 0),
        "recall": (_effective(positives.sum(axis=0)), 0),
        "specificity": (_effective(negatives.sum(axis=0)), 0),
        "f1": (_effective(either), 0),
        "pr_auc": (_effective(positives.sum(axis=0)), 0),
        "cross_entropy": (_ratio(np.sqrt(variance), total), count),
        "ece": (_ratio(drawn.std(), total), _ratio(by_chance.mean(), total)),
    }
    found = [(value.get(name, np.nan), *numbers[name]) for name in MEASURED]
    return np.array([sums["rows"], *np.ravel(found), *map(_effective, sums["classes"])], np.float64)


def _effective(weights: np.ndarray) -> float:
    return float(weights[0] ** 2 / weights[1]) if weights[1] > 0 else 0.0


def _inside(share: float, count: float) -> float:
    """A share whose logit is finite: that of half a row, where it is 0 or 1."""
    return float(np.clip(share, 1 / (2 * count + 2), 1 - 1 / (2 * count + 2)))


def interval(
    name: str, value: float, spread: float, confidence: float, further: float | np.ndarray = 0.0
) -> tuple[float, float]:
    """The confidence interval of a metric of a slice; NaN where no row tells anything.

    Shares (accuracy, precision, recall, specificity) have Wilson's; f1 that of the share it is made of, of the rows
    that are or are answered to be positive; auc and pr_auc that of their logit; cross_entropy Student's. An ece is
    larger than the true one by chance alone: its interval begins lower by as much as chance can add.

    Args:
        name: `auc`, or one of MEASURED.
        value: of the metric.
        spread: of slice_statistics; of no meaning for auc.
        confidence: between 0 and 1.
        further: the number behind it; for auc, of each label how many rows it has.

    Source: Hand, Christen and Kirielle, F*: an interpretable transformation of the F-measure, Machine Learning 110
        (2021); Boyd, Eng and Page, Area under the Precision-Recall Curve (ECML 2013), the logit interval.
    """
    width = float(stats.norm.ppf((1 + confidence) / 2))
    if not np.isfinite(value):
        return float("nan"), float("nan")
    if name == "auc":
        return _logit_interval(value, *_auc_error(value, np.asarray(further)), width)
    if name == "pr_auc":
        share = _inside(value, spread)
        return _logit_interval(value, share, 1 / np.sqrt(spread * share * (1 - share)), width)
    if name == "ece":
        return max(value - float(further) - width * spread, 0.0), value + width * spread
    if name == "cross_entropy":
        if not further > 1.5:  # of one row nothing is known of how much rows differ
            return float("nan"), float("nan")
        width = float(stats.t.ppf((1 + confidence) / 2, float(further) - 1))
        return max(value - width * spread, 0.0), value + width * spread
    if name == "f1":
        low, high = wilson_interval(value / (2 - value), spread, confidence)
        return 2 * low / (1 + low), 2 * high / (1 + high)
    return wilson_interval(value, spread, confidence)


def _logit_interval(value: float, share: float, error: float, width: float) -> tuple[float, float]:
    low, high = expit(logit(share) - width * error), expit(logit(share) + width * error)
    return min(float(low), value), max(float(high), value)


def _auc_error(area: float, counts: np.ndarray) -> tuple[float, float]:
    """An area under the ROC curve whose logit is finite, and the standard error of that; of several labels, the mean's.

    Args:
        area: the area, or the mean of the areas.
        counts: float64 [classes], how many rows each label has.

    Source: Hanley and McNeil, Radiology 143 (1982), equation 1.
    """
    others = counts.sum() - counts
    of_each = [(own, other) for own, other in zip(counts, others, strict=True) if own > 0 and other > 0]
    share = _inside(area, min(min(pair) for pair in of_each)) if of_each else float("nan")
    variances = []
    for positives, negatives in of_each[1:] if len(counts) == 2 else of_each:
        both = share / (2 - share) - share**2, 2 * share**2 / (1 + share) - share**2
        pairs = share * (1 - share) + (positives - 1) * both[0] + (negatives - 1) * both[1]
        variances.append(pairs / (positives * negatives) / (share * (1 - share)) ** 2)
    return share, float(np.sqrt(np.mean(variances))) if variances else float("nan")
