"""What `serving_default` answers where that is not always the most probable label.

A decision has a threshold of its own for one label; after it, the label for unknown takes the place of what the model
does not know well enough, by a threshold that is given or that conformal prediction sets.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class Decision:
    """Which label is answered, where that is not always the most probable one.

    Attributes:
        label: answered where its probability is at least the threshold; else the most probable of the others is.
        threshold: a float32.
    """

    label: str
    threshold: float

    def numbers(self, probabilities: np.ndarray, labels: Sequence[str]) -> np.ndarray:
        """int64 [n]: the number of the label that is answered to each row of float32 [n, classes]."""
        return decided_numbers(probabilities, list(labels).index(self.label), self.threshold)


def decided_numbers(probabilities: np.ndarray, number: int, threshold: float) -> np.ndarray:
    """int64 [n]: `number` where its probability in float32 [n, classes] reaches the threshold, else the best other."""
    others = np.where(np.arange(probabilities.shape[1]) == number, np.float32(-1), probabilities)
    return np.where(probabilities[:, number] >= np.float32(threshold), number, others.argmax(axis=1))


_DECISION_FILE = "assets.extra/decision.json"


def write_decision(saved_model: str, decision: Decision) -> None:
    """Leave in an export what its `serving_default` does, for those who have its probabilities."""
    tf.io.gfile.makedirs(f"{saved_model}/assets.extra")
    with tf.io.gfile.GFile(f"{saved_model}/{_DECISION_FILE}", "w") as file:
        file.write(json.dumps(asdict(decision)))


def read_decision(saved_model: str) -> Decision | None:
    """What write_decision wrote; None for an export that answers the most probable label."""
    if not tf.io.gfile.exists(f"{saved_model}/{_DECISION_FILE}"):
        return None
    with tf.io.gfile.GFile(f"{saved_model}/{_DECISION_FILE}") as file:
        return Decision(**json.loads(file.read()))


# In provenance.json.
UNKNOWN = "unknown"
# Where the rows come from that a coverage is calibrated on.
OUT_OF_FOLD, HALF_OF_EVAL = "out_of_fold", "half_of_eval"


@dataclass(frozen=True)
class UnknownRule:
    """When a label of its own is answered instead of a label of the model.

    Attributes:
        label: what is answered then.
        threshold: a label whose probability, float32, is smaller is not answered.
        coverage: None where a confidence was named. Else the labels that reach the threshold are the label set of a
            row, which holds the true label in so large a share of new rows, and a label is answered where the set is
            that label alone.
        calibrated_on: OUT_OF_FOLD, rows of the train split told by models that did not see them; HALF_OF_EVAL, see
            `calibrates`; "" without a coverage.
        rows: how many these are.
    """

    label: str
    threshold: float
    coverage: float | None = None
    calibrated_on: str = ""
    rows: int = 0

    @classmethod
    def of(cls, provenance: Mapping[str, Any]) -> UnknownRule | None:
        """That of a provenance.json; None where every row is answered with a label of the model."""
        return cls(**provenance[UNKNOWN]) if UNKNOWN in provenance else None

    def as_provenance(self) -> dict[str, Any]:
        """What provenance.json says of it."""
        return {UNKNOWN: asdict(self)}

    def replaces(self, probabilities: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
        """bool [batch]: whether the label for unknown takes the place of the one that is chosen.

        Args:
            probabilities: float32 [batch, classes].
            chosen: int64 [batch], the label that would be answered.
        """
        reached = self.label_sets(probabilities)
        answered = tf.gather(reached, chosen, axis=1, batch_dims=1)
        if self.coverage is not None:
            answered &= tf.equal(tf.math.count_nonzero(reached, axis=1), 1)
        return ~answered

    def label_sets(self, probabilities: tf.Tensor) -> tf.Tensor:
        """bool [batch, classes]: which labels reach the threshold."""
        return tf.greater_equal(probabilities, tf.constant(self.threshold, tf.float32))

    def is_close(self, probabilities: np.ndarray, tolerance: float) -> np.ndarray:
        """bool [n]: whether probabilities, [n, classes], that are off by the tolerance may change the answer."""
        distance = np.abs(probabilities.astype(np.float64) - self.threshold)
        return np.asarray(distance.min(axis=1) <= tolerance)


def calibrates(example_id: str) -> bool:
    """Whether an example of the eval split, by its id, is of the half that a coverage is calibrated on.

    Equal examples are in the same half; the other half measures what comes of it.
    """
    return example_id[-1] in "02468ace"


# So far below the probability of a calibrating row, at most, lies the threshold: rounding moves no such row across it.
_MARGIN = 1e-4


def conformal_threshold(of_truth: np.ndarray, coverage: float) -> float:
    """The probability that a label needs to be in the label set of a row, by split conformal prediction.

    The sets of new rows hold the true label with a probability of at least `coverage`, over rows from the same source
    as these, of which the model saw none.

    Args:
        of_truth: float [n], the probability of the true label of each row.
        coverage: between 0 and 1.

    Raises:
        ValueError: there are too few rows for the coverage.

    Source: Angelopoulos and Bates, A Gentle Introduction to Conformal Prediction, https://arxiv.org/abs/2107.07511,
        section 1 (scores are 1 minus the probability of the true label).
    """
    descending = np.sort(of_truth.astype(np.float64))[::-1]
    count = math.ceil((len(descending) + 1) * coverage - 1e-9)
    if count > len(descending):
        needed = math.ceil(coverage / (1 - coverage) - 1e-9)
        raise ValueError(f"needs {needed} labelled rows that the model did not learn from, received {len(descending)}")
    reached = float(descending[count - 1])
    below = descending[count:][descending[count:] < reached]
    gap = reached - float(below[0]) if len(below) else math.inf
    return max(0.0, reached - min(gap / 2, _MARGIN))


def rule_of_coverage(
    label: str, coverage: float, of_truth: np.ndarray | Sequence[float], calibrated_on: str
) -> UnknownRule:
    """The rule whose label sets have this coverage; arguments and errors as of conformal_threshold."""
    known = np.asarray(of_truth, np.float64)
    return UnknownRule(label, conformal_threshold(known, coverage), coverage, calibrated_on, len(known))
