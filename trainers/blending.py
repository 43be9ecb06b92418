"""Blending: folds, the weights that suit predictions out of folds best, their temperature, and what is kept of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from trainers.roc import area_under_roc
from trainers.tuning import SMALLEST_PROBABILITY

FOLDS = 5
# With more rows one fold says enough, and training takes a sixth of the time.
_ROWS_OF_ALL_FOLDS = 100_000
_HELD_OUT_SHARE, _MOST_HELD_OUT = 0.1, 50_000


def stratified_folds(labels: np.ndarray, seed: int) -> list[np.ndarray]:
    """Rows to be predicted by models that did not see them: FOLDS disjoint sets that together are all rows.

    Of more than 100,000 rows it is one set alone, a tenth of them and at most 50,000.

    Args:
        labels: int64 [n]; each has its share in each fold, as far as its rows go.
        seed: of the draw.

    Returns:
        ascending rows, int64, of each fold.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    by_label = order[np.argsort(labels[order], kind="stable")]
    if len(labels) > _ROWS_OF_ALL_FOLDS:
        step = max(round(1 / _HELD_OUT_SHARE), -(-len(labels) // _MOST_HELD_OUT))
        return [np.sort(by_label[::step])]
    return [np.sort(by_label[first::FOLDS]) for first in range(FOLDS)]


def cross_entropies(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float64 [n]: minus the logarithm of the probability of each row's label.

    Args:
        probabilities: float [n, classes].
        labels: int64 [n].
    """
    of_labels = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.maximum(of_labels, SMALLEST_PROBABILITY))


_BINS = 15


def expected_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """How far the best label's probability is from how often it is right, in 15 bins of equal width.

    Args:
        probabilities: float [n, classes].
        labels: int64 [n].
        weights: float64 [n], how much each row counts; None where all count the same. Likewise everywhere here.

    Source: Guo et al., On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599, equation 3.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    counts = np.ones(len(labels)) if weights is None else weights
    return float(np.abs(np.bincount(bins, counts * (right - confidence), minlength=_BINS)).sum() / counts.sum())


# Shares below it are noise of the fit, and their members would cost time in each answer.
_SMALLEST_WEIGHT = 0.02
_STEPS = 2000


def best_weights(of_labels: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """float64 [members], at least 0 and 1 in the sum: the mean of probabilities with the smallest cross entropy.

    Expectation maximisation for the shares of a mixture, which has one optimum: a member's share becomes its mean part
    in the mixture's probability of what happened. Members with hardly any share are left out, and the rest is weighted
    anew.

    Args:
        of_labels: float64 [n, members], the probability that each gives to each row's label.
        rows: float64 [n], the weights of the rows.
    """
    likelihoods = np.maximum(of_labels.astype(np.float64), SMALLEST_PROBABILITY)
    weights = _mixture(likelihoods, rows)
    kept = weights >= _SMALLEST_WEIGHT
    weights = np.zeros(len(weights))
    weights[kept] = _mixture(likelihoods[:, kept], rows)
    return weights


def _mixture(likelihoods: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    weights = np.full(likelihoods.shape[1], 1 / likelihoods.shape[1])
    for _ in range(_STEPS):
        gains = np.average(likelihoods / (likelihoods @ weights)[:, None], axis=0, weights=rows)
        weights = weights * gains
        if gains.max() < 1 + 1e-6:  # then no mixture is better by more than that
            break
    return weights / weights.sum()


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """float64 [n, classes]: what softmax makes of the probabilities' logarithms over the temperature."""
    logits = np.log(np.maximum(probabilities.astype(np.float64), SMALLEST_PROBABILITY)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return result


def best_temperature(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The temperature of the smallest cross entropy, from 1/5 to 5: above 1 for what is too sure of itself.

    Each row is taken to have any label with the probability of the classes over the rows, as by Laplace's rule of
    succession: where no answer of few was wrong, that is no reason to be all but certain.

    Source: Platt, Probabilistic Outputs for Support Vector Machines (1999), section 2.1, smooths two labels so.
    """
    rows, classes = probabilities.shape
    share = classes / (rows + classes)

    def loss(logarithm: float) -> float:
        answers = tempered(probabilities, np.exp(logarithm))
        of_any = np.average(-np.log(np.maximum(answers, SMALLEST_PROBABILITY)).mean(axis=1), weights=weights)
        of_labels = np.average(cross_entropies(answers, labels), weights=weights)
        return float((1 - share) * of_labels + share * of_any)

    found = minimize_scalar(loss, bounds=(-np.log(5), np.log(5)), method="bounded")
    return float(np.exp(found.x))


def mean_and_error(values: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, float]:
    """The mean of independent values, and its standard error.

    Source of the error with weights: Cochran, Sampling Techniques (1977), equation 6.13, of a ratio.
    """
    if weights is not None:
        mean = float(np.average(values, weights=weights))
        return mean, float(np.sqrt((weights**2 * (values - mean) ** 2).sum()) / weights.sum())
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


@dataclass(frozen=True)
class Blend:
    """What is kept of the members, and why.

    Attributes:
        weights: member -> its share, in the order in which they were tried; 0 for those that are not kept.
        temperature: of the weighted mean of their probabilities; 1 leaves it as it is.
        report: for the provenance: figures of each member, of the blend, of the calibration, and a sentence.
    """

    weights: Mapping[str, float]
    temperature: float
    report: Mapping[str, Any]

    def probabilities(self, of_members: Mapping[str, np.ndarray]) -> np.ndarray:
        """float32 [n, classes], from those of each member that is kept."""
        return tempered(_mean(of_members, self.weights), self.temperature).astype(np.float32)


def _mean(of_members: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    kept = [weight * of_members[name].astype(np.float64) for name, weight in weights.items() if weight]
    return np.sum(kept, axis=0)


# With fewer rows no member is left out, and weights are as if so many rows more had found all members equally good.
# Over 23 public tables the sum of cross entropies was 1.7 % smaller than by the rule for many rows.
_FEW_ROWS, _EQUAL_ROWS = 2_000, 100


def choose_blend(
    out_of_fold: Mapping[str, np.ndarray],
    labels: np.ndarray,
    always: bool = False,
    row_weights: np.ndarray | None = None,
) -> Blend:
    """The blend with the smallest cross entropy, or the best member where it gains less than its own standard error.

    The same holds for a temperature. Both are chosen and measured on the same rows; they are few numbers for many rows.
    Of few rows the best member is the best by luck, and so are weights: there it is always the blend, its weights drawn
    towards equal ones.

    Args:
        out_of_fold: member -> float [n, classes], by models that did not see the rows.
        labels: int64 [n].
        always: take the blend whatever it gains.
        row_weights: float64 [n], how much each row counts.
    """
    names = list(out_of_fold)
    losses = {name: cross_entropies(out_of_fold[name], labels) for name in names}
    best = min(names, key=lambda name: np.average(losses[name], weights=row_weights))
    alone = {name: float(name == best) for name in names}
    rows = np.arange(len(labels))
    found = best_weights(np.stack([out_of_fold[name][rows, labels] for name in names], axis=1), row_weights)
    has_few_rows = len(names) > 1 and len(labels) < _FEW_ROWS
    if has_few_rows:
        found = (len(labels) * found + _EQUAL_ROWS / len(names)) / (len(labels) + _EQUAL_ROWS)
    together = {name: float(weight) for name, weight in zip(names, found, strict=True)}
    gain, error = mean_and_error(losses[best] - cross_entropies(_mean(out_of_fold, together), labels), row_weights)
    is_blend = sum(weight > 0 for weight in found) > 1 and (always or has_few_rows or gain > error)
    weights = together if is_blend else alone
    before = _mean(out_of_fold, weights)
    temperature = _worthwhile_temperature(before, labels, row_weights)
    after = tempered(before, temperature)
    report = {
        "kept": "blend" if is_blend else best,
        "why": _reason(best, gain, error, is_blend, len(names))
        + (f"; of {len(labels)} rows the best alone would be luck" if has_few_rows else ""),
        "rows": len(labels),
        "members": {
            name: figures(out_of_fold[name], labels, row_weights) | {"weight": weights[name]} for name in names
        },
        "blend": figures(after, labels, row_weights),
        "calibration": {
            "temperature": temperature,
            "cross_entropy": [mean_and_error(cross_entropies(one, labels), row_weights)[0] for one in (before, after)],
            "ece": [expected_calibration_error(one, labels, row_weights) for one in (before, after)],
        },
    }
    return Blend(weights, temperature, report)


def _worthwhile_temperature(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None) -> float:
    temperature = best_temperature(probabilities, labels, weights)
    losses = [cross_entropies(one, labels) for one in (probabilities, tempered(probabilities, temperature))]
    gain, error = mean_and_error(losses[0] - losses[1], weights)
    return temperature if gain > error else 1.0


def _reason(best: str, gain: float, error: float, is_blend: bool, members: int) -> str:
    if members == 1:
        return f"{best} is all that was tried"
    comparison = (
        f"a blend gains {gain:.4f} in cross entropy over {best}, the best alone; its standard error is {error:.4f}"
    )
    return comparison if is_blend else f"{comparison}: {best} is kept alone"


_WIDTH_OF_95 = 1.96


def figures(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> dict[str, Any]:
    """`cross_entropy` with its 95 % confidence interval, `auc`, `accuracy`, `ece`."""
    loss, error = mean_and_error(cross_entropies(probabilities, labels), weights)
    accuracy, accuracy_error = mean_and_error((probabilities.argmax(axis=1) == labels).astype(np.float64), weights)
    return {
        "cross_entropy": [loss, loss - _WIDTH_OF_95 * error, loss + _WIDTH_OF_95 * error],
        "accuracy": [accuracy, accuracy - _WIDTH_OF_95 * accuracy_error, accuracy + _WIDTH_OF_95 * accuracy_error],
        "auc": _auc(probabilities, labels, weights),
        "ece": expected_calibration_error(probabilities, labels, weights),
    }


def _auc(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None) -> list[float]:
    """The area under the ROC curve, of more than two classes the mean of each against the others, and its interval.

    Source of the standard error: Hanley and McNeil, Radiology 143 (1982), equation 1.
    """
    classes: Sequence[int] = [1] if probabilities.shape[1] == 2 else np.unique(labels).tolist()
    areas, variances = [], []
    for number in classes:
        positive = labels == number
        rows = None if weights is None else weights[None]
        area = float(area_under_roc(positive, probabilities[:, number], rows)[0])
        pair, counts = area * (1 - area), [_effective_count(weights, chosen) for chosen in (positive, ~positive)]
        both = area / (2 - area) - area**2, 2 * area**2 / (1 + area) - area**2
        areas.append(area)
        variances.append((pair + (counts[0] - 1) * both[0] + (counts[1] - 1) * both[1]) / (counts[0] * counts[1]))
    area, error = float(np.mean(areas)), float(np.sqrt(np.mean(variances)))
    return [area, area - _WIDTH_OF_95 * error, min(area + _WIDTH_OF_95 * error, 1.0)]


def _effective_count(weights: np.ndarray | None, chosen: np.ndarray) -> float:
    """How many rows of equal weight tell as much as the chosen ones (Kish, Survey Sampling, 1965)."""
    if weights is None:
        return float(chosen.sum())
    return float(weights[chosen].sum() ** 2 / max((weights[chosen] ** 2).sum(), 1e-300))
