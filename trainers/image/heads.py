"""Classification heads: ridge regression solved in one step, and the choice of blocks a head sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from threadpoolctl import threadpool_limits

# Of the mean eigenvalue of the features' covariance.
PENALTIES = np.logspace(-3, 2, 11)
# What keras.layers.Normalization divides by at least.
SMALLEST_DEVIATION = 1e-7
_LARGEST_TEMPERATURE = 100.0
# By so many rows blocks are chosen: more take long, and change little. Of products this small, threads mostly wait for
# one another: on two busy cores a choice took a minute by two of them, and takes 2 s by one.
_ROWS_THAT_CHOOSE = 1000


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
    penalty and the scale are those of the least cross entropy of leave-one-out predictions, which have a closed form
    (Allen's PRESS).

    Args:
        features: [rows, features].
        labels: int64 [rows].
        classes: how many labels there are.
        weights: float [rows], how much each counts.
        judged: int64 [m], the rows by which the choices are made.
    """
    mean, deviation = _mean_and_deviation(features)
    root, targets = _roots_and_targets(labels, classes, weights)
    rows = np.array(features, np.float64)
    rows -= mean
    rows /= deviation
    # A penalty must not hold the mean of a class down: rows and targets are centred by their weights.
    row_mean = np.average(rows, axis=0, weights=weights)
    rows -= row_mean
    rows *= root
    with threadpool_limits(1 if len(rows) <= _ROWS_THAT_CHOOSE else None, user_api="blas"):
        if len(rows) <= rows.shape[1]:
            values, vectors = np.linalg.eigh(rows @ rows.T)
        else:
            values, directions = np.linalg.eigh(rows.T @ rows)
            vectors = rows @ directions / np.sqrt(np.maximum(values, np.finfo(float).tiny))
        solution = _solved(values, vectors, root, targets, labels, weights, judged)
        kernel = rows.T @ solution.dual
    return RidgeHead(
        mean=mean.astype(np.float32),
        deviation=deviation.astype(np.float32),
        kernel=(solution.temperature * kernel).astype(np.float32),
        bias=(solution.temperature * ((root**2 * targets).mean(axis=0) - row_mean @ kernel)).astype(np.float32),
        right=solution.right,
    )


def _mean_and_deviation(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = features.mean(axis=0, dtype=np.float64)
    return mean, np.maximum(features.std(axis=0, dtype=np.float64), SMALLEST_DEVIATION)


def _roots_and_targets(labels: np.ndarray, classes: int, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[rows, 1] and [rows, classes]: the roots of weights whose mean is 1, and the classes as 0 and 1."""
    return np.sqrt(weights / weights.mean())[:, None], np.eye(classes)[labels]


@dataclass(frozen=True)
class _Solution:
    """Least squares by the penalty whose leave-one-out predictions have the least cross entropy.

    Attributes:
        dual: [rows, classes]; the rows' transpose times it is the kernel.
        temperature: by which all is multiplied for the softmax.
        cross_entropy: of these predictions, of the rows that it is judged by.
        right: bool [judged], which of them it tells.
    """

    dual: np.ndarray
    temperature: float
    cross_entropy: float
    right: np.ndarray


def _solved(
    values: np.ndarray,
    vectors: np.ndarray,
    root: np.ndarray,
    targets: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    judged: np.ndarray,
) -> _Solution:
    """The solution by the eigenvalues and eigenvectors, [n] and [rows, n], of all products of centred rows."""
    # What is 0 but for rounding has no direction.
    kept = values > len(vectors) * np.finfo(float).eps * values.max()
    values, vectors = values[kept], vectors[:, kept]
    mean_value = values.mean() if len(values) else 1.0
    target_mean = (root**2 * targets).mean(axis=0)
    projected = vectors.T @ (root * (targets - target_mean))
    told, counted = labels[judged], weights[judged]
    best: _Solution | None = None
    for penalty in PENALTIES * mean_value:
        shrunk = values / (values + penalty)
        fitted = vectors @ (shrunk[:, None] * projected) / root + target_mean
        leverage = np.minimum((vectors**2) @ shrunk + 1 / len(vectors), 1 - 1e-6)[:, None]
        # What the solution without a row says of it.
        left_out = (targets - (targets - fitted) / (1 - leverage))[judged]
        temperature, cross_entropy = _best_temperature(left_out, told, counted)
        if best is None or cross_entropy <= best.cross_entropy:
            dual = vectors @ (projected / (values + penalty)[:, None])
            best = _Solution(dual, temperature, cross_entropy, left_out.argmax(axis=1) == told)
    assert best is not None
    return best


def _best_temperature(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """What the scores are multiplied by for the least cross entropy of their softmax, and that.

    Labels are smoothed by 1 / (rows + 1): where all rows are told, it is by their number how sure an answer may be.
    """
    smoothing = 1 / (len(labels) + 1)

    def cross_entropy(logarithm: float) -> float:
        logits = np.exp(logarithm) * scores
        of_label = (1 - smoothing) * logits[np.arange(len(labels)), labels] + smoothing * logits.mean(axis=1)
        return float(np.average(logsumexp(logits, axis=1) - of_label, weights=weights))

    found = minimize_scalar(
        cross_entropy, bounds=(0.0, np.log(_LARGEST_TEMPERATURE)), method="bounded", options={"xatol": 0.01}
    )
    return float(np.exp(found.x)), float(found.fun)


@threadpool_limits.wrap(limits=1, user_api="blas")
def chosen_blocks(
    features: Mapping[str, np.ndarray], labels: np.ndarray, classes: int, weights: np.ndarray, judged: np.ndarray
) -> list[str]:
    """The block whose pooled features tell the classes best, with its neighbours as long as they help.

    The last block is not always the best: it knows most of what the backbone was trained for, and least of the rest.
    What is compared is the cross entropy of leave-one-out predictions: of some hundred photos, how many are told says
    too little to choose by.

    Args:
        features: block, in order -> [rows, channels].
        labels: int64 [rows].
        classes: how many labels there are.
        weights: float [rows], how much each counts.
        judged: int64 [m], the rows by which the choice is made.
    """
    if len(labels) > _ROWS_THAT_CHOOSE:
        kept = np.sort(np.random.default_rng(0).permutation(len(labels))[:_ROWS_THAT_CHOOSE])
        features = {name: values[kept] for name, values in features.items()}
        labels, weights, judged = labels[kept], weights[kept], np.flatnonzero(np.isin(kept, judged))
    root, targets = _roots_and_targets(labels, classes, weights)

    def products(values: np.ndarray) -> np.ndarray:
        mean, deviation = _mean_and_deviation(values)
        rows = (np.asarray(values, np.float64) - mean) / deviation
        rows = root * (rows - (root**2 * rows).mean(axis=0))
        return rows @ rows.T

    # Of joined features, the products of rows are the sums of those of each block.
    names, of_blocks = list(features), [products(values) for values in features.values()]

    def cross_entropy(begin: int, end: int) -> float:
        values, vectors = np.linalg.eigh(np.sum(of_blocks[begin:end], axis=0))
        return _solved(values, vectors, root, targets, labels, weights, judged).cross_entropy

    # Of equals the first: what is cut off there is smaller.
    best, begin = min((cross_entropy(place, place + 1), place) for place in range(len(names)))
    end = begin + 1
    while True:
        wider = [(begin - 1, end)] * (begin > 0) + [(begin, end + 1)] * (end < len(names))
        found = min(((cross_entropy(*window), window) for window in wider), default=(np.inf, (begin, end)))
        if found[0] >= best:
            return names[begin:end]
        best, (begin, end) = found
