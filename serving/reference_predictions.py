"""What the training graph says of the eval split, and when `serving_default` answers that it is unknown instead."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

FILE_NAME = "reference_predictions.parquet"


@dataclass(frozen=True)
class ReferencePredictions:
    """One row per example.

    Attributes:
        ids: of the examples.
        labels: the most probable label of each.
        probabilities: float32 [n, classes], in vocabulary order.
        answers: what serving_default answers, where that is not always the label; see UnknownRule.
    """

    ids: list[str]
    labels: list[str]
    probabilities: np.ndarray
    answers: list[str] | None = None

    @property
    def served(self) -> list[str]:
        """What serving_default answers."""
        return self.labels if self.answers is None else self.answers

    def with_answers(self, answers: list[str]) -> ReferencePredictions:
        """The same with these answers of serving_default."""
        return replace(self, answers=answers)

    def rows(self, chosen: Sequence[int]) -> ReferencePredictions:
        """Some of the rows, in the order given."""
        return ReferencePredictions(
            ids=[self.ids[row] for row in chosen],
            labels=[self.labels[row] for row in chosen],
            probabilities=self.probabilities[list(chosen)],
            answers=None if self.answers is None else [self.answers[row] for row in chosen],
        )


def predictions_of(ids: Sequence[str], labels: Sequence[str], probabilities: np.ndarray) -> ReferencePredictions:
    """Those with the most probable of the labels, which are in the order of the probabilities, [n, classes]."""
    return ReferencePredictions(list(ids), [labels[best] for best in probabilities.argmax(axis=1)], probabilities)


def example_id(serialized_example: bytes) -> str:
    """The id of an example: SHA-256 of its serialized tf.Example, as hexadecimal digits."""
    return hashlib.sha256(serialized_example).hexdigest()


def write(path: str, predictions: ReferencePredictions) -> None:
    """Write a Parquet file; `path` is anything that tf.io.gfile takes."""
    table = pa.table(
        {
            "id": predictions.ids,
            "label": predictions.labels,
            "probabilities": pa.array(list(predictions.probabilities.astype(np.float32)), pa.list_(pa.float32())),
            **({"answer": predictions.answers} if predictions.answers is not None else {}),
        }
    )
    buffer = pa.BufferOutputStream()  # pyarrow does not take a GFile for a file
    pq.write_table(table, buffer)
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(buffer.getvalue().to_pybytes())


def read(path: str) -> ReferencePredictions:
    """Read what `write` wrote.

    Raises:
        tf.errors.NotFoundError: there is no such file.
    """
    with tf.io.gfile.GFile(path, "rb") as file:
        table = pq.read_table(pa.BufferReader(file.read()))
    rows = table.column("probabilities").to_pylist()
    return ReferencePredictions(
        ids=table.column("id").to_pylist(),
        labels=table.column("label").to_pylist(),
        probabilities=np.asarray(rows, np.float32).reshape(len(rows), -1),
        answers=table.column("answer").to_pylist() if "answer" in table.column_names else None,
    )


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

    def answers(self, predictions: ReferencePredictions) -> ReferencePredictions:
        """The predictions with what serving_default answers, whose labels are the most probable ones."""
        probabilities = predictions.probabilities
        replaced = self.replaces(tf.constant(probabilities, tf.float32), tf.constant(probabilities.argmax(axis=1)))
        labels = zip(predictions.labels, replaced.numpy().tolist(), strict=True)
        return predictions.with_answers([self.label if unknown else label for label, unknown in labels])


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
