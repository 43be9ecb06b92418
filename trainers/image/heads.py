"""Classification heads: ridge regression solved in one step, and the choice of blocks a head sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# Of the mean eigenvalue of the features' covariance.
PENALTIES = np.logspace(-3, 2, 11)
# What keras.layers.Normalization divides by at least.
SMALLEST_DEVIATION = 1e-7
_TEMPERATURES = np.logspace(0, 2, 41)


@dataclass(frozen=True)
class RidgeHead:
    """softmax(((features - mean) / deviation) @ kernel + bias).

    Attributes:
        mean: float32 [features].
        deviation: float32 [features].
        kernel: float32 [features, classes].
        bias: float32 [classes].
        right: bool [judged], which of the photos that it was judged by it tells, each left out of its own training.
    """

    mean: np.ndarray
    deviation: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    right: np.ndarray

    @property
    def accuracy(self) -> float:
        """The share of these photos that it tells."""
        return float(self.right.mean())


def ridge_head(
    features: np.ndarray, labels: np.ndarray, classes: int, weights: np.ndarray, judged: np.ndarray
) -> RidgeHead:
    """Least squares on the classes as 0 and 1, scaled so that the softmax fits.

    With few photos, least squares finds far better boundaries than logistic regression on the same features. The
    penalty and the scale are chosen by leave-one-out predictions, which have a closed form (Allen's PRESS).

    Args:
        features: [rows, features].
        labels: int64 [rows].
        classes: how many labels there are.
        weights: float [rows], how much each counts.
        judged: int64 [m], the rows by which the choices are made.
    """
    rows = np.array(features, np.float64)
    mean, deviation = rows.mean(axis=0), np.maximum(rows.std(axis=0), SMALLEST_DEVIATION)
    rows -= mean
    rows /= deviation
    root = np.sqrt(weights / weights.mean())[:, None]
    targets = np.eye(classes)[labels]
    # A penalty must not hold the mean of a class down: rows and targets are centred by their weights.
    row_mean, target_mean = (root**2 * rows).mean(axis=0), (root**2 * targets).mean(axis=0)
    left, singular, right = np.linalg.svd(root * (rows - row_mean), full_matrices=False)
    projected = left.T @ (root * (targets - target_mean))

    best: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    for penalty in PENALTIES * max((singular**2).mean(), np.finfo(float).tiny):
        shrunk = singular**2 / (singular**2 + penalty)
        scores = _left_out_scores(left, shrunk, projected, root, targets, target_mean)[judged]
        told = scores.argmax(axis=1) == labels[judged]
        if best is None or told.sum() >= best[0].sum():
            best = told, scores, right.T @ ((singular / (singular**2 + penalty))[:, None] * projected)
    assert best is not None
    told, scores, kernel = best
    temperature = min(_TEMPERATURES, key=lambda scale: _cross_entropy(scale * scores, labels[judged]))
    return RidgeHead(
        mean=mean.astype(np.float32),
        deviation=deviation.astype(np.float32),
        kernel=(temperature * kernel).astype(np.float32),
        bias=(temperature * (target_mean - row_mean @ kernel)).astype(np.float32),
        right=told,
    )


def _left_out_scores(
    left: np.ndarray,
    shrunk: np.ndarray,
    projected: np.ndarray,
    root: np.ndarray,
    targets: np.ndarray,
    target_mean: np.ndarray,
) -> np.ndarray:
    """[n, classes]: what the solution without a row says of it."""
    fitted = left @ (shrunk[:, None] * projected) / root + target_mean
    leverage = np.minimum((left**2) @ shrunk + 1 / len(left), 1 - 1e-6)[:, None]
    return targets - (targets - fitted) / (1 - leverage)


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(shifted).sum(axis=1))
    return float((log_sums - shifted[np.arange(len(labels)), labels]).mean())


def chosen_blocks(
    features: Mapping[str, np.ndarray], labels: np.ndarray, classes: int, weights: np.ndarray, judged: np.ndarray
) -> list[str]:
    """The block whose pooled features tell the classes best, with its neighbours as long as they help.

    The last block is not always the best: it knows most of what the backbone was trained for, and least of the rest.

    Args:
        features: block, in order -> [rows, channels].
        labels: int64 [rows].
        classes: how many labels there are.
        weights: float [rows], how much each counts.
        judged: int64 [m], the rows by which the choice is made.
    """

    def accuracy(begin: int, end: int) -> float:
        joined = np.concatenate([features[name] for name in names[begin:end]], axis=1)
        return ridge_head(joined, labels, classes, weights, judged).accuracy

    names = list(features)
    # Of equals the first: what is cut off there is smaller.
    best, begin = max((accuracy(place, place + 1), -place) for place in range(len(names)))
    begin, end = -begin, 1 - begin
    while True:
        wider = [(begin - 1, end)] * (begin > 0) + [(begin, end + 1)] * (end < len(names))
        found = max(((accuracy(*window), window) for window in wider), default=(0.0, (begin, end)))
        if found[0] <= best:
            return names[begin:end]
        best, (begin, end) = found
