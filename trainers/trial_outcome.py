"""What a trial of a search for hyperparameters came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# Below it, cross-entropy would be infinite for a single wrong answer.
SMALLEST_PROBABILITY = 1e-7


@dataclass(frozen=True)
class TrialOutcome:
    """A trained model, by its answers to examples that it did not learn from.

    Attributes:
        curves: what Keras recorded of each epoch, by name.
        labels: int64 [n], the number of each example's label.
        probabilities: float32 [n, classes].
    """

    curves: Mapping[str, Sequence[float]]
    labels: np.ndarray
    probabilities: np.ndarray

    def metrics(self) -> dict[str, float]:
        """`auc`, for more than two classes the mean of each against the others; `accuracy`; `cross_entropy`."""
        of_labels = self.probabilities[np.arange(len(self.labels)), self.labels]
        classes = range(1, 2) if self.probabilities.shape[1] == 2 else np.unique(self.labels)
        areas = [_area_under_roc(self.labels == number, self.probabilities[:, number]) for number in classes]
        return {
            "auc": float(np.mean(areas)),
            "accuracy": float((self.probabilities.argmax(axis=1) == self.labels).mean()),
            "cross_entropy": float(-np.log(np.maximum(of_labels, SMALLEST_PROBABILITY)).mean()),
        }


def _area_under_roc(positive: np.ndarray, scores: np.ndarray) -> float:
    """The probability that a positive example scores above another one, ties counted half."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    positives = int(positive.sum())
    below = ranks[positive].sum() - positives * (positives + 1) / 2
    return float(below / (positives * (len(positive) - positives)))
