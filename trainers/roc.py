"""The ROC curve of a classifier's predictions."""

from __future__ import annotations

import numpy as np


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
