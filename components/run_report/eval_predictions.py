"""What the models say of the eval split, and what is true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class EvalPredictions:
    """One row for each example with a usable label.

    Attributes:
        ids: see serving.reference_predictions.
        labels: the names of the classes, in the order of the probabilities.
        truth: int64 [n], the class of each example.
        probabilities: float32 [n, classes], the new model's.
        baseline: float32 [n, classes], those of the model served before; None where there is none to compare with.
    """

    ids: Sequence[str]
    labels: Sequence[str]
    truth: np.ndarray
    probabilities: np.ndarray
    baseline: np.ndarray | None = None

    @property
    def predicted(self) -> np.ndarray:
        """int64 [n], the most probable class."""
        return self.probabilities.argmax(axis=1)
