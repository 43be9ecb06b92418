"""What the training graph predicts for the eval split: the truth that a served answer is compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from serving.answers import Decision, UnknownRule

FILE_NAME = "reference_predictions.parquet"


@dataclass(frozen=True)
class ReferencePredictions:
    """One row per example.

    Attributes:
        ids: of the examples.
        labels: the most probable label of each.
        probabilities: float32 [n, classes], in vocabulary order.
        answers: what serving_default answers, where that is not always the label; see serving/answers.py.
    """

    ids: list[str]
    labels: list[str]
    probabilities: np.ndarray
    answers: list[str] | None = None

    @property
    def served(self) -> list[str]:
        """What serving_default answers."""
        return self.labels if self.answers is None else self.answers

    def rows(self, chosen: Sequence[int]) -> ReferencePredictions:
        """Some of the rows, in the order given."""
        return ReferencePredictions(
            ids=[self.ids[row] for row in chosen],
            labels=[self.labels[row] for row in chosen],
            probabilities=self.probabilities[list(chosen)],
            answers=None if self.answers is None else [self.answers[row] for row in chosen],
        )


def predictions_of(ids: Sequence[str], labels: Sequence[str], probabilities: np.ndarray) -> ReferencePredictions:
    """Those with the most probable label.

    Args:
        ids: of the n examples.
        labels: in the order of the probabilities.
        probabilities: float32 [n, classes].
    """
    best = probabilities.argmax(axis=1)
    return ReferencePredictions(list(ids), [labels[number] for number in best], probabilities)


def with_answers(
    predictions: ReferencePredictions,
    labels: Sequence[str],
    decision: Decision | None = None,
    unknown: UnknownRule | None = None,
) -> ReferencePredictions:
    """The predictions with what serving_default answers: the decision chooses a label, which unknown may replace.

    Args:
        predictions: with the most probable labels.
        labels: in the order of the probabilities.
        decision: None for the most probable label.
        unknown: None where each row is answered with a label of the model.
    """
    if decision is None and unknown is None:
        return predictions
    probabilities = predictions.probabilities
    chosen = probabilities.argmax(axis=1) if decision is None else decision.numbers(probabilities, labels)
    answers = [labels[number] for number in chosen]
    if unknown is not None:
        replaced = unknown.replaces(tf.constant(probabilities, tf.float32), tf.constant(chosen, tf.int64)).numpy()
        answers = [unknown.label if one else label for label, one in zip(answers, replaced, strict=True)]
    return replace(predictions, answers=answers)


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
