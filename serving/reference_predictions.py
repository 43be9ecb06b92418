"""What the training graph predicts for the eval split: the truth that a served answer is compared with.

And the ids of examples, by which the two find each other, and by which some of very many are chosen.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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
        truth: int64 [n], the number of each example's own label, negative where it has none that can be used; None
            where nobody knows.
    """

    ids: list[str]
    labels: list[str]
    probabilities: np.ndarray
    answers: list[str] | None = None
    truth: np.ndarray | None = None

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
            truth=None if self.truth is None else self.truth[list(chosen)],
        )


def predictions_of(
    ids: Sequence[str], labels: Sequence[str], probabilities: np.ndarray, truth: np.ndarray | None = None
) -> ReferencePredictions:
    """Those with the most probable label.

    Args:
        ids: of the n examples.
        labels: in the order of the probabilities.
        probabilities: float32 [n, classes].
        truth: see ReferencePredictions.
    """
    best = probabilities.argmax(axis=1)
    return ReferencePredictions(list(ids), [labels[number] for number in best], probabilities, truth=truth)


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


def read_examples(files: Sequence[str], most: int | None = None) -> Iterator[bytes]:
    """Serialized tf.Examples of TFRecord files, compressed where the name ends in .gz.

    Args:
        files: of a split.
        most: of very many files, so many examples at most, the first ones of each: files follow the order of the data,
            so that these are from everywhere. None for all. Few files are read whole.
    """
    of_file = None if most is None or len(files) < _MANY_FILES else -(-most // len(files))
    for records in read_record_batches(files, of_file=of_file):
        yield from records


# In fewer files, the first examples of each might be those of one time alone.
_MANY_FILES = 16


def find_examples(files: Sequence[str], ids: Collection[str], most: int) -> dict[str, bytes]:
    """Id -> record of these examples; those that `read_examples` gives for `most` are looked at first."""
    found: dict[str, bytes] = {}
    for bound in (most, None):
        for record in read_examples(files, bound):
            if len(found) == len(ids):
                return found
            if (id_ := example_id(record)) in ids:
                found[id_] = record
    return found


# One by one, records take forty times as long; but photos are not to be in memory by the thousand.
_RECORDS_AT_ONCE, _BYTES_AT_ONCE = 1024, 4 * 2**20
# Read together: so many records, or as many as are a part of those bytes, were all as large as the first ones.
_READ_TOGETHER, _PARTS, _LOOKED_AT = 128, 32, 32
_ENOUGH_RECORDS = 64


def read_record_batches(
    files: Sequence[str],
    most: int = _RECORDS_AT_ONCE,
    enough_bytes: int = _BYTES_AT_ONCE,
    of_file: int | None = None,
) -> Iterator[np.ndarray]:
    """object [n]: records of TFRecord files, at most some MiB of them at a time.

    Args:
        files: compressed where the name ends in .gz.
        most: how many there are in a batch, however small they are.
        enough_bytes: with which a batch ends that has enough records for their number not to matter.
        of_file: how many are read of each file at most; None for all.
    """
    for compression, alike in itertools.groupby(files, lambda file: "GZIP" if file.endswith(".gz") else ""):
        records = _records(list(alike), compression, of_file)
        largest = max(map(len, records.take(_LOOKED_AT).as_numpy_iterator()), default=1)
        together = min(_READ_TOGETHER, max(1, _BYTES_AT_ONCE // _PARTS // max(1, largest)))
        waiting: list[np.ndarray] = []
        count = size = 0
        for part in records.batch(together).as_numpy_iterator():
            waiting.append(part)
            count += len(part)
            size += sum(map(len, part))
            if count + together > most or size >= (enough_bytes if count >= _ENOUGH_RECORDS else _BYTES_AT_ONCE):
                yield np.concatenate(waiting)
                waiting, count, size = [], 0, 0
        if waiting:
            yield np.concatenate(waiting)


def _records(files: list[str], compression: str, of_file: int | None) -> tf.data.Dataset:
    if of_file is None:
        return tf.data.TFRecordDataset(files, compression)
    first = tf.autograph.experimental.do_not_convert(
        lambda file: tf.data.TFRecordDataset(file, compression).take(of_file)
    )
    return tf.data.Dataset.from_tensor_slices(files).flat_map(first)


# A choice among so many is as good as one among all.
_CHOSEN_AMONG = 100_000


def choose_examples(
    files: Sequence[str], maximum: int, among: int = _CHOSEN_AMONG
) -> tuple[list[tuple[str, bytes]], int]:
    """Id and record of up to `maximum` examples, and how many were looked at.

    Those with the smallest ids among the ones that `read_examples` gives for `among`: a choice at random, and the same
    one in each run.
    """
    count = 0

    def identified() -> Iterator[tuple[str, bytes]]:
        nonlocal count
        for record in read_examples(files, max(maximum, among)):
            count += 1
            yield example_id(record), record

    # Twins have one id and one record.
    return heapq.nsmallest(maximum, identified()), count


def choose_ids(files: Sequence[str], maximum: int) -> list[str]:
    """The ids that choose_examples chooses among as many."""
    return heapq.nsmallest(maximum, map(example_id, read_examples(files, maximum)))


def write(path: str, predictions: ReferencePredictions | Iterable[ReferencePredictions]) -> None:
    """Write a Parquet file, of all at once or part by part; `path` is anything that tf.io.gfile takes."""
    parts = [predictions] if isinstance(predictions, ReferencePredictions) else predictions
    with tempfile.TemporaryDirectory() as folder:
        # pyarrow does not take a GFile for a file.
        local = f"{folder}/{FILE_NAME}"
        writer = None
        for part in parts:
            rows = pa.table(
                {
                    "id": part.ids,
                    "label": part.labels,
                    "probabilities": pa.array(list(part.probabilities.astype(np.float32)), pa.list_(pa.float32())),
                    **({"answer": part.answers} if part.answers is not None else {}),
                    **({"truth": part.truth} if part.truth is not None else {}),
                }
            )
            if writer is None:
                writer = pq.ParquetWriter(local, rows.schema)
            writer.write_table(rows)
        if writer is not None:
            writer.close()
            tf.io.gfile.copy(local, path, overwrite=True)


_ROWS_AT_ONCE = 65_536


def read(path: str, ids: Collection[str] | None = None) -> ReferencePredictions:
    """Read what `write` wrote, in the order of the file.

    Args:
        path: anything that tf.io.gfile takes.
        ids: of the rows that are read; None for all.

    Raises:
        tf.errors.NotFoundError: there is no such file.
    """
    wanted = None if ids is None else pa.array(list(ids), pa.string())
    parts, width = [], 0
    with _opened(path) as file:
        for batch in file.iter_batches(_ROWS_AT_ONCE):
            if len(batch):
                width = len(batch.column("probabilities")[0])
            if wanted is not None:
                batch = batch.filter(pc.is_in(batch.column("id"), value_set=wanted))
            parts.append(batch)
        table = pa.Table.from_batches(parts, file.schema_arrow)
    values = pc.list_flatten(table.column("probabilities")).to_numpy()
    return ReferencePredictions(
        ids=table.column("id").to_pylist(),
        labels=table.column("label").to_pylist(),
        probabilities=values.astype(np.float32).reshape(len(table), width),
        answers=table.column("answer").to_pylist() if "answer" in table.column_names else None,
        truth=table.column("truth").to_numpy() if "truth" in table.column_names else None,
    )


def row_count(path: str) -> int:
    """How many rows `write` wrote.

    Raises:
        tf.errors.NotFoundError: there is no such file.
    """
    with _opened(path) as file:
        rows: int = file.metadata.num_rows
    return rows


def _opened(path: str) -> pq.ParquetFile:
    if "://" not in path:
        tf.io.gfile.stat(path)
        return pq.ParquetFile(path)
    with tf.io.gfile.GFile(path, "rb") as content:
        return pq.ParquetFile(pa.BufferReader(content.read()))
