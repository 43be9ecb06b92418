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


def read_examples(files: Sequence[str]) -> Iterator[bytes]:
    """Serialized tf.Examples of TFRecord files, compressed where the name ends in .gz."""
    for records in read_record_batches(files):
        yield from records


# One by one, records take forty times as long; but photos are not to be in memory by the thousand.
_RECORDS_AT_ONCE, _BYTES_AT_ONCE = 1024, 4 * 2**20
# Read together: so many records, or as many as are a part of those bytes, were all as large as the first ones.
_READ_TOGETHER, _PARTS, _LOOKED_AT = 128, 32, 32
_ENOUGH_RECORDS = 64


def read_record_batches(
    files: Sequence[str], most: int = _RECORDS_AT_ONCE, enough_bytes: int = _BYTES_AT_ONCE
) -> Iterator[np.ndarray]:
    """object [n]: records of TFRecord files, at most some MiB of them at a time.

    Args:
        files: compressed where the name ends in .gz.
        most: how many there are in a batch, however small they are.
        enough_bytes: with which a batch ends that has enough records for their number not to matter.
    """
    for compression, alike in itertools.groupby(files, lambda file: "GZIP" if file.endswith(".gz") else ""):
        records = tf.data.TFRecordDataset(list(alike), compression)
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


def choose_examples(files: Sequence[str], maximum: int) -> tuple[list[tuple[str, bytes]], int]:
    """Id and record of up to `maximum` examples, and how many there are in all.

    Those with the smallest ids: a choice at random, and the same one in each run.
    """
    count = 0
    chosen: list[tuple[str, bytes]] = []
    for records in read_record_batches(files):
        count += len(records)
        identified: Iterable[tuple[str, bytes]] = zip(map(example_id, records), records, strict=True)
        if chosen and len(chosen) == maximum:  # of many rows, hardly any comes before these
            identified = (found for found in identified if found < chosen[-1])
        # Twins have one id and one record.
        chosen = heapq.nsmallest(maximum, itertools.chain(chosen, identified))
    return chosen, count


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
_DIGITS = 8


def is_drawn(id_: str, share: float) -> bool:
    """Whether an example is of a share of all, drawn by their ids: equal examples are in it or not."""
    return share >= 1 or int(id_[:_DIGITS], 16) < share * 16**_DIGITS


def read(path: str, ids: Collection[str] | None = None, most: int | None = None) -> ReferencePredictions:
    """Read what `write` wrote, in the order of the file.

    Args:
        path: anything that tf.io.gfile takes.
        ids: of the rows that are read; None for all.
        most: about so many rows at most are read: those that are drawn, see `share_of`.

    Raises:
        tf.errors.NotFoundError: there is no such file.
    """
    wanted = None if ids is None else pa.array(list(ids), pa.string())
    parts, width = [], 0
    with _opened(path) as file:
        share = _share(file, most)
        for batch in file.iter_batches(_ROWS_AT_ONCE):
            if len(batch):
                width = len(batch.column("probabilities")[0])
            if wanted is not None:
                batch = batch.filter(pc.is_in(batch.column("id"), value_set=wanted))
            if share < 1:
                batch = batch.filter(
                    pa.array([is_drawn(id_, share) for id_ in batch.column("id").to_pylist()], pa.bool_())
                )
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


def share_of(path: str, most: int) -> tuple[float, int]:
    """The share of rows that `read` draws for `most`, and how many there are in all.

    Raises:
        tf.errors.NotFoundError: there is no such file.
    """
    with _opened(path) as file:
        return _share(file, most), file.metadata.num_rows


def _share(file: pq.ParquetFile, most: int | None) -> float:
    return 1.0 if most is None else min(1.0, most / max(file.metadata.num_rows, 1))


def _opened(path: str) -> pq.ParquetFile:
    if "://" not in path:
        tf.io.gfile.stat(path)
        return pq.ParquetFile(path)
    with tf.io.gfile.GFile(path, "rb") as content:
        return pq.ParquetFile(pa.BufferReader(content.read()))
