"""What the training graph predicts for the eval split: the truth that a served answer is compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from serving.signatures.common import Decision

FILE_NAME = "reference_predictions.parquet"


@dataclass(frozen=True)
class ReferencePredictions:
    """One row per example: ids and labels of length n, probabilities float32 [n, classes] in vocabulary order."""

    ids: list[str]
    labels: list[str]
    probabilities: np.ndarray


def predictions_of(
    ids: Sequence[str], labels: Sequence[str], probabilities: np.ndarray, decision: Decision | None = None
) -> ReferencePredictions:
    """Those with the label that is answered: by the decision, or the most probable one.

    Args:
        ids: of the n examples.
        labels: in the order of the probabilities.
        probabilities: float32 [n, classes].
        decision: of the export.
    """
    answered = probabilities.argmax(axis=1) if decision is None else decision.numbers(probabilities, labels)
    return ReferencePredictions(list(ids), [labels[number] for number in answered], probabilities)


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
    )
