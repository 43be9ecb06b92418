"""The ROC curve of a classifier's predictions, and a threshold on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from trainers.errors import TrainingError
from trainers.options import DecisionOptions


def area_under_roc(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The probability that a positive example scores above a negative one, ties counted half.

    Args:
        positive: bool [n].
        scores: float [n].
        weights: float [resamples, n], how often each example counts; by default each once, in one sample.

    Returns:
        float64 [resamples]; NaN where a resample has examples of one kind only.
    """
    if weights is None:
        weights = np.ones((1, len(scores)))
    order = np.argsort(scores, kind="stable")
    positive, scores, weights = positive[order], scores[order], weights[:, order]
    ties = np.flatnonzero(np.concatenate([[True], np.diff(scores) > 0]))
    positives = np.add.reduceat(weights * positive, ties, axis=1)
    negatives = np.add.reduceat(weights * ~positive, ties, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (positives * (below + negatives / 2)).sum(axis=1) / pairs


def wilson_interval(share: float, count: float, confidence: float) -> tuple[float, float]:
    """The confidence interval of a share of so many rows, which need not be a whole number; NaN of none.

    Source: Wilson, Probable inference, JASA 1927.
    """
    if not count > 0:
        return float("nan"), float("nan")
    width = float(stats.norm.ppf((1 + confidence) / 2))
    centre = (share + width**2 / (2 * count)) / (1 + width**2 / count)
    half = width / (1 + width**2 / count) * np.sqrt(share * (1 - share) / count + width**2 / (4 * count**2))
    return max(float(centre - half), 0.0), min(float(centre + half), 1.0)


@dataclass(frozen=True)
class Scores:
    """Rows that a model did not see, and what it says of them.

    Attributes:
        positive: bool [n], whether a row has the positive label.
        scores: float32 [n], the probability of that label.
        weights: float64 [n], how much each row counts; None where all count the same.
    """

    positive: np.ndarray
    scores: np.ndarray
    weights: np.ndarray | None = None

    def figures(self, threshold: float) -> dict[str, list[float]]:
        """Precision, recall, specificity, accuracy, each with its 95 % interval, and f1, at a threshold.

        Empty lists for what no row is there to measure by.
        """
        weights = np.ones(len(self.scores)) if self.weights is None else self.weights
        named = self.scores >= np.float32(threshold)
        right = named == self.positive
        of = {
            "precision": (right, named),
            "recall": (right, self.positive),
            "specificity": (right, ~self.positive),
            "accuracy": (right, np.ones_like(right)),
        }
        found: dict[str, list[float]] = {}
        for name, (hits, rows) in of.items():
            total = float(weights[rows].sum())
            if not total:
                found[name] = []
                continue
            share = float(weights[rows & hits].sum()) / total
            found[name] = [share, *wilson_interval(share, total**2 / float((weights[rows] ** 2).sum()), 0.95)]
        hits, missed = (float(weights[self.positive & part].sum()) for part in (named, ~named))
        wrong = float(weights[~self.positive & named].sum())
        return {**found, "f1": [2 * hits / max(2 * hits + missed + wrong, 1e-300)]}


def best_threshold(options: DecisionOptions, rows: Scores) -> float:
    """The threshold that the options ask for, a float32 that lies between two scores, so that neither is near it.

    Args:
        options: with `maximise` or `at_least`.
        rows: that the model did not see.

    Raises:
        TrainingError: no threshold reaches what is asked for, or all rows are of one kind; the message says what is
            reached.
    """
    order = np.argsort(-rows.scores, kind="stable")
    positive, scores = rows.positive[order], rows.scores[order].astype(np.float32)
    weights = (np.ones(len(scores)) if rows.weights is None else rows.weights)[order]
    if positive.all() or not positive.any():
        raise TrainingError(
            f"serving.decision: of {len(scores):,} rows, {int(positive.sum()):,} have the positive label; expected "
            "some with and some without it: give a threshold, or more data"
        )
    ends = np.concatenate([np.flatnonzero(np.diff(scores)), [len(scores) - 1]])
    hits, wrong = ((weights * part).cumsum()[ends] for part in (positive, ~positive))
    all_hits, all_wrong = hits[-1], wrong[-1]
    curve: Mapping[str, np.ndarray] = {
        "precision": hits / np.maximum(hits + wrong, 1e-300),
        "recall": hits / all_hits,
        "specificity": 1 - wrong / all_wrong,
        "f1": 2 * hits / (hits + wrong + all_hits),
        "accuracy": (hits + all_wrong - wrong) / (all_hits + all_wrong),
    }
    if options.maximise is not None:
        place = int(np.argmax(curve[options.maximise]))
    else:
        ((metric, bound),) = options.at_least.items()
        other = "precision" if metric == "recall" else "recall"
        reached = curve[metric] >= bound - 1e-12
        if not reached.any():
            raise TrainingError(
                f"serving.decision.at_least.{metric} is {bound:g}, and no threshold reaches more than "
                f"{curve[metric].max():.4f} on {len(scores):,} rows that the model did not see; ask for less, or give "
                "a threshold"
            )
        # Of equals the one that reaches more of what is asked for.
        place = int(np.lexsort([curve[metric], np.where(reached, curve[other], -1.0)])[-1])
    above = scores[ends[place]]
    below = scores[ends[place] + 1] if place + 1 < len(ends) else np.float32(0)
    middle = np.float32((np.float64(above) + np.float64(below)) / 2)
    return float(middle if below < middle <= above else above)
