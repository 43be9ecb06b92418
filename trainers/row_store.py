"""Transformed rows on disk: a split that is larger than the memory it may take, read part by part in a new order."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import tensorflow as tf

from serving.loading import machine_memory
from trainers.fitting import FinishedParts
from trainers.splits import (
    BATCHES_SORTED_TOGETHER,
    Column,
    TransformedBatch,
    TransformedSplit,
    TransformGraph,
    check_weights,
    dense_batch,
    joined_columns,
    joined_split,
    transformed_batches,
)

# What training holds of each row besides its features: the digits of its id, and what Python keeps of a text.
_BYTES_OF_A_ROW = 200
# Rows that follow one another on disk are read at once, so many bytes or a little more of them.
_BLOCK_BYTES, _FEWEST_IN_BLOCK, _MOST_IN_BLOCK = 65_536, 16, 256
# Rows among which they are put into any order, and which are handed on at once.
_PART_BYTES, _MOST_IN_PART = 64 * 2**20, 262_144
_ROWS_AT_ONCE = 32_768
# With fewer rows in memory nothing is gained to speak of; more of them, what learns from these gains little by.
FEWEST_SAMPLED, MOST_SAMPLED = 150_000, 500_000
_LAYOUT, _LABELS, _WEIGHTS, _IDS, _ENDS = "layout.json", "labels", "weights", "ids", ".ends"
_ID_BYTES, _BUCKETS = 32, 64


@dataclass(frozen=True)
class StoredColumn:
    """A feature on disk.

    Attributes:
        name: of the feature.
        file: the values of its rows, one row after the other.
        dtype: of them.
        width: of an array's row; None for a ragged tensor: where its rows end among the values is in a file of its own.
    """

    name: str
    file: str
    dtype: str
    width: int | None


@dataclass(frozen=True)
class RowStore:
    """A split on disk. Memory holds nothing of it that grows with its rows.

    Attributes:
        folder: where its files are.
        columns: the model's inputs.
        rows: how many have a usable label.
        row_bytes: of their features, in the mean.
        left_out: how many examples had no usable label.
        fingerprint: that of a TransformedSplit of the same examples.
        label_weights: label -> the sum of its rows' weights, each 1 where there are none.
        has_weights: whether rows have weights of their own.
    """

    folder: Path
    columns: tuple[StoredColumn, ...]
    rows: int
    row_bytes: float
    left_out: int
    fingerprint: str
    label_weights: tuple[float, ...]
    has_weights: bool

    @classmethod
    def open(cls, folder: Path) -> RowStore | None:
        """The one that was written there; None where that did not come to its end."""
        if not (folder / _LAYOUT).exists():
            return None
        layout = json.loads((folder / _LAYOUT).read_text())
        columns = tuple(StoredColumn(**column) for column in layout.pop("columns"))
        label_weights = tuple(layout.pop("label_weights"))
        return cls(folder=folder, columns=columns, label_weights=label_weights, **layout)

    def read(self, first: int, last: int) -> TransformedSplit:
        """The rows from `first` on, up to `last`, with their ids."""
        return self._read([(first, last)], with_ids=True)

    def parts(self) -> Iterator[TransformedSplit]:
        """All rows in their order, with their ids, some at a time."""
        at_once = int(np.clip(_PART_BYTES // max(self.row_bytes, 1), _FEWEST_IN_BLOCK, _ROWS_AT_ONCE))
        starts = range(0, self.rows, at_once)
        yield from ahead(self.read(first, min(first + at_once, self.rows)) for first in starts)

    def chosen(self, rows: np.ndarray) -> TransformedSplit:
        """Some rows, ascending, with their ids; they are to fit into memory."""
        found, first = [], 0
        for part in self.parts():
            last = first + len(part.labels)
            within = rows[np.searchsorted(rows, first) : np.searchsorted(rows, last)]
            if len(within):
                found.append(_rows_of(part, within - first))
            first = last
        ids = [id_ for part in found for id_ in part.ids]
        return replace(_joined(found), ids=ids, left_out=self.left_out, fingerprint=self.fingerprint)

    def draw(self, most: int, seed: int) -> np.ndarray:
        """int64, ascending: so many rows, or all, each of them equally likely."""
        if most >= self.rows:
            return np.arange(self.rows)
        chance, drawn, left = np.random.default_rng(seed), [], most
        for first in range(0, self.rows, _ROWS_AT_ONCE):
            size = min(_ROWS_AT_ONCE, self.rows - first)
            taken = int(chance.hypergeometric(size, self.rows - first - size, left)) if left else 0
            drawn.append(first + np.sort(chance.choice(size, taken, replace=False)))
            left -= taken
        return np.concatenate(drawn)

    def shuffled(
        self, batch_size: int, seed: int, number: int, without: np.ndarray | None = None, by_length: bool = False
    ) -> Iterator[StoredPart]:
        """Each row once, in an order that the seed and the number of the pass decide, as parts of whole batches.

        Blocks of rows that stand side by side come in any order, and the rows of a thousand of them, 64 MiB at most, in
        any order among themselves. Only the last part has a batch that is not full.

        Args:
            batch_size: rows of a batch.
            seed: of the order.
            number: of the pass.
            without: int64, ascending: rows that are left out.
            by_length: whether rows of like length come into one batch, so that ragged columns are filled up little.
        """
        chance = np.random.default_rng([seed, number])
        size = int(np.clip(_BLOCK_BYTES // max(self.row_bytes, 1), _FEWEST_IN_BLOCK, _MOST_IN_BLOCK))
        blocks = chance.permutation(-(-self.rows // size))
        most = int(np.clip(_PART_BYTES // max(self.row_bytes, 1), batch_size, max(_MOST_IN_PART, batch_size)))
        together = max(1, most // size)
        rest: StoredPart | None = None
        for place in range(0, len(blocks), together):
            of_part = blocks[place : place + together] * size
            part = self._part([(int(first), min(int(first) + size, self.rows)) for first in of_part], without)
            if rest is not None:
                part = StoredPart(np.concatenate([rest.numbers, part.numbers]), _joined([rest.split, part.split]))
            is_last = place + together >= len(blocks)
            order = chance.permutation(len(part.numbers))
            whole = len(order) if is_last else len(order) // batch_size * batch_size
            rest = part.rows(order[whole:])
            part = part.rows(order[:whole])
            if by_length:
                part = part.by_length(batch_size, chance)
            if whole:
                yield part

    def batches(
        self,
        batch_size: int,
        seed: int,
        first: int,
        without: np.ndarray | None = None,
        balanced: bool = False,
        by_length: bool = False,
    ) -> tf.data.Dataset:
        """What splits.shuffled_batches gives: those of pass `first` and of all that follow, without end."""
        weighed = self.has_weights or balanced

        def parts() -> Iterator[tuple[Any, ...]]:
            for number in count(first):
                for part in self.shuffled(batch_size, seed, number, without, by_length):
                    given = self.training_weights(part.split, balanced)
                    yield part.split.features, part.split.labels, *([] if given is None else [given.astype(np.float32)])

        plain = tf.autograph.experimental.do_not_convert

        @plain
        def of_part(features: Mapping[str, Column], *others: tf.Tensor) -> tf.data.Dataset:
            chosen = tf.data.Dataset.range(tf.size(others[0], tf.int64)).batch(batch_size)
            taken = plain(lambda rows: (dense_batch(features, rows), *(tf.gather(other, rows) for other in others)))
            return chosen.map(taken)

        signature = (self.spec(), tf.TensorSpec([None], tf.int64), *([tf.TensorSpec([None], tf.float32)] * weighed))
        dataset = tf.data.Dataset.from_generator(parts, output_signature=signature).prefetch(1)
        return dataset.flat_map(of_part).prefetch(tf.data.AUTOTUNE)

    def spec(self) -> dict[str, tf.TypeSpec]:
        """Of the features of a part."""
        return {
            column.name: tf.RaggedTensorSpec([None, None], column.dtype, ragged_rank=1)
            if column.width is None
            else tf.TensorSpec([None, column.width], column.dtype)
            for column in self.columns
        }

    def training_weights(self, part: TransformedSplit, balanced: bool) -> np.ndarray | None:
        """What splits.training_weights gives for all rows, of those of a part."""
        if part.weights is None and not balanced:
            return None
        weights = np.ones(len(part.labels)) if part.weights is None else part.weights
        of_labels = np.array(self.label_weights)
        if balanced:
            weights = weights / np.where(of_labels > 0, of_labels, 1.0)[part.labels]
            return weights * self.rows / (of_labels > 0).sum()
        return weights * self.rows / of_labels.sum()

    def _part(self, ranges: Sequence[tuple[int, int]], without: np.ndarray | None) -> StoredPart:
        numbers = np.concatenate([np.arange(first, last) for first, last in ranges])
        part = StoredPart(numbers, self._read(ranges))
        if without is None or not len(without):
            return part
        return part.rows(np.flatnonzero(~is_among(numbers, without)))

    def _read(self, ranges: Sequence[tuple[int, int]], with_ids: bool = False) -> TransformedSplit:
        ids = self._values(_IDS, np.dtype(np.uint8), ranges, _ID_BYTES).tobytes().hex() if with_ids else ""
        return TransformedSplit(
            ids=[ids[place : place + 2 * _ID_BYTES] for place in range(0, len(ids), 2 * _ID_BYTES)],
            features={column.name: self._column(column, ranges) for column in self.columns},
            labels=self._values(_LABELS, np.dtype(np.int64), ranges),
            left_out=0,
            fingerprint="",
            weights=self._values(_WEIGHTS, np.dtype(np.float64), ranges) if self.has_weights else None,
        )

    def _column(self, column: StoredColumn, ranges: Sequence[tuple[int, int]]) -> Column:
        if column.width is not None:
            return self._values(column.file, np.dtype(column.dtype), ranges, column.width).reshape(-1, column.width)
        lengths, places = [], []
        for first, last in ranges:
            ends = self._values(column.file + _ENDS, np.dtype(np.int64), [(max(first - 1, 0), last)])
            starts = ends if first else np.concatenate([[0], ends])
            lengths.append(np.diff(starts))
            places.append((int(starts[0]), int(starts[-1])))
        values = self._values(column.file, np.dtype(column.dtype), places)
        return tf.RaggedTensor.from_row_lengths(values, np.concatenate(lengths), validate=False)

    def _values(self, file: str, dtype: np.dtype[Any], ranges: Sequence[tuple[int, int]], width: int = 1) -> np.ndarray:
        """Those of rows of `width` values, read without the pages of a mapped file, which would count as memory."""
        found = np.empty(sum(last - first for first, last in ranges) * width, dtype)
        view, place, size = memoryview(found.view(np.uint8).data), 0, dtype.itemsize * width
        descriptor = self._descriptors.get(file)
        if descriptor is None:
            descriptor = self._descriptors[file] = _Descriptor(self.folder / file)
        for first, last in ranges:
            end = place + (last - first) * size
            while place < end:
                read = os.preadv(descriptor.number, [view[place:end]], last * size - (end - place))
                if not read:
                    raise OSError(
                        f"{self.folder / file}: expected {last} rows of {size} bytes, and the file ends before"
                    )
                place += read
        return found

    @cached_property
    def _descriptors(self) -> dict[str, _Descriptor]:
        return {}


class _Descriptor:
    """An open file, closed when nothing uses it any more."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)

    @property
    def number(self) -> int:
        return self._file.fileno()


@dataclass(frozen=True)
class StoredPart:
    """Rows of a store.

    Attributes:
        numbers: int64 [n], which rows of it.
        split: the rows themselves, without ids.
    """

    numbers: np.ndarray
    split: TransformedSplit

    def rows(self, chosen: np.ndarray) -> StoredPart:
        """Some of them, in the order given."""
        return StoredPart(self.numbers[chosen], _rows_of(self.split, chosen))

    def by_length(self, batch_size: int, chance: np.random.Generator) -> StoredPart:
        """Batches of rows of like length, in any order; the last one may not be full. See splits.shuffled_batches."""
        ragged = [column for column in self.split.features.values() if isinstance(column, tf.RaggedTensor)]
        if not ragged:
            return self
        lengths = np.sum([column.row_lengths().numpy() for column in ragged], axis=0)
        neighbours = np.arange(len(lengths)) // (BATCHES_SORTED_TOGETHER * batch_size)
        order = np.lexsort([lengths, neighbours])
        whole = len(order) // batch_size * batch_size
        batches = chance.permutation(order[:whole].reshape(-1, batch_size))
        return self.rows(np.concatenate([batches.reshape(-1), order[whole:]]))


def is_among(numbers: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """bool [n]: which of the numbers are among the others."""
    places = np.searchsorted(ascending, numbers)
    return (places < len(ascending)) & (np.append(ascending, -1)[places] == numbers)


def _rows_of(split: TransformedSplit, rows: np.ndarray) -> TransformedSplit:
    return replace(
        split,
        ids=[split.ids[row] for row in rows] if split.ids else [],
        features={
            name: tf.gather(column, rows) if isinstance(column, tf.RaggedTensor) else column[rows]
            for name, column in split.features.items()
        },
        labels=split.labels[rows],
        weights=None if split.weights is None else split.weights[rows],
    )


def _joined(splits: Sequence[TransformedSplit]) -> TransformedSplit:
    first = splits[0]
    return replace(
        first,
        ids=[],
        features={name: joined_columns([split.features[name] for split in splits]) for name in first.features},
        labels=np.concatenate([split.labels for split in splits]),
        weights=None if first.weights is None else np.concatenate([split.weights for split in splits]),
    )


Item = TypeVar("Item")


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The items, the next one made while one is worked on."""
    with ThreadPoolExecutor(1) as thread:
        upcoming = thread.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = thread.submit(next, items, None)
            yield item


class _Writer:
    """Writes a store; what a killed one left there is taken away first."""

    def __init__(self, folder: Path, weight: str) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder, self._weight = folder, weight
        self._files: dict[str, BinaryIO] = {}
        self._columns: dict[str, StoredColumn] = {}
        self._ends: dict[str, int] = {}
        self._rows, self._left_out, self._bytes = 0, 0, 0
        self._label_weights: np.ndarray = np.zeros(0)

    def add(self, batch: TransformedBatch) -> None:
        usable = batch.labels >= 0
        labels, weights = batch.labels[usable], batch.weights[usable]
        for name, column in batch.features.items():
            self._add_column(name, column)
        ids = np.frombuffer(bytes.fromhex("".join(batch.ids)), np.uint8).reshape(-1, _ID_BYTES)
        self._append(_IDS, ids[usable])
        self._append(_LABELS, labels)
        if self._weight:
            self._append(_WEIGHTS, weights)
        # Buckets of ids in their order, so that they can be sorted a bucket at a time.
        bucket = ids[:, 0] // (256 // _BUCKETS)
        for number in np.unique(bucket):
            self._append(f"bucket{number}", ids[bucket == number])
        of_labels = np.bincount(labels, weights, minlength=len(self._label_weights)).astype(np.float64)
        of_labels[: len(self._label_weights)] += self._label_weights
        self._label_weights = of_labels
        self._rows += len(labels)
        self._left_out += len(usable) - len(labels)

    def _add_column(self, name: str, column: Column) -> None:
        ragged = column if isinstance(column, tf.RaggedTensor) else None
        values = np.asarray(column) if ragged is None else ragged.flat_values.numpy()
        if name not in self._columns:
            width = None if ragged is not None else int(np.prod(values.shape[1:]))
            self._columns[name] = StoredColumn(name, f"column{len(self._columns)}", values.dtype.name, width)
        file = self._columns[name].file
        self._append(file, values)
        self._bytes += values.nbytes
        if ragged is not None:
            ends = ragged.row_splits.numpy()[1:].astype(np.int64) + self._ends.get(name, 0)
            self._append(file + _ENDS, ends)
            self._bytes += ends.nbytes
            self._ends[name] = int(ends[-1]) if len(ends) else self._ends.get(name, 0)

    def _append(self, file: str, values: np.ndarray) -> None:
        if file not in self._files:
            self._files[file] = (self._folder / file).open("wb")
        self._files[file].write(np.ascontiguousarray(values).tobytes())

    def finish(self) -> RowStore:
        for file in self._files.values():
            file.close()
        if self._weight:
            check_weights(np.fromfile(self._folder / _WEIGHTS, np.float64), self._weight)
        layout = {
            "columns": [vars(column) for column in self._columns.values()],
            "rows": self._rows,
            "row_bytes": self._bytes / max(self._rows, 1),
            "left_out": self._left_out,
            "fingerprint": self._fingerprint(),
            "label_weights": self._label_weights.tolist(),
            "has_weights": bool(self._weight),
        }
        unfinished = self._folder / f"{_LAYOUT}.unfinished"
        unfinished.write_text(json.dumps(layout))
        unfinished.rename(self._folder / _LAYOUT)
        store = RowStore.open(self._folder)
        assert store is not None, "it has just been written"
        return store

    def _fingerprint(self) -> str:
        """What joined_split gives of the same ids."""
        digest = hashlib.sha256()
        for number in range(_BUCKETS):
            bucket = self._folder / f"bucket{number}"
            if bucket.exists():
                ids = bucket.read_bytes()
                bucket.unlink()
                ordered = sorted(ids[place : place + _ID_BYTES] for place in range(0, len(ids), _ID_BYTES))
                digest.update(b"".join(ordered).hex().encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class RowMemory:
    """How much of the machine's memory the rows of a training may take, and where they go else.

    Attributes:
        bytes: so much.
        folder: a folder for them, which a training that was killed and started again finds; it may not be there yet.
        copies: how often training holds the features of a row, at its peak.
    """

    bytes: int
    folder: Path
    copies: float

    def read(
        self,
        name: str,
        file_patterns: Sequence[str],
        transform: TransformGraph,
        inputs: Callable[[Mapping[str, tf.Tensor]], Mapping[str, Column]],
        weight: str = "",
    ) -> TransformedSplit | RowStore:
        """A split as splits.read_transformed_split reads it, or a store of it where training would take more memory.

        Args:
            name: of the split.
            file_patterns: see splits.transformed_batches, as for all others.
            transform: the graph.
            inputs: what becomes of its features.
            weight: the column of weights.
        """
        folder = self.folder / name
        stored = RowStore.open(folder)
        if stored is not None:
            return stored
        held, taken, writer = [], 0.0, None
        for batch in transformed_batches(file_patterns, transform, inputs, weight=weight):
            if writer is not None:
                writer.add(batch)
                continue
            held.append(batch)
            taken += self.copies * _features_bytes(batch.features) + _BYTES_OF_A_ROW * len(batch.ids)
            if taken > self.bytes:
                writer = _Writer(folder, weight)
                while held:
                    writer.add(held.pop(0))
        return joined_split(held, weight) if writer is None else writer.finish()

    def fitting(self, store: RowStore) -> int:
        """How many rows of a store may be in memory; FEWEST_SAMPLED at least and MOST_SAMPLED at most."""
        of_row = self.copies * store.row_bytes + _BYTES_OF_A_ROW
        return min(store.rows, MOST_SAMPLED, max(FEWEST_SAMPLED, int(self.bytes / of_row)))


def _features_bytes(features: Mapping[str, Column]) -> int:
    return sum(
        column.flat_values.numpy().nbytes + column.row_splits.numpy().nbytes
        if isinstance(column, tf.RaggedTensor)
        else np.asarray(column).nbytes
        for column in features.values()
    )


@dataclass(frozen=True)
class Stream:
    """A store that a training learns from, and what of it is in memory for what cannot.

    Attributes:
        store: all rows.
        sample: int64, ascending: which of them are in memory.
        finished: parts of the training that need not be done again.
    """

    store: RowStore
    sample: np.ndarray
    finished: FinishedParts


def sampled(
    source: TransformedSplit | RowStore, memory: RowMemory, seed: int, most: int | None = None
) -> tuple[TransformedSplit, Stream | None]:
    """The split; or of a store some rows, each equally likely, and the stream of all: `most`, or as many as fit."""
    if isinstance(source, TransformedSplit):
        return source, None
    rows = source.draw(memory.fitting(source) if most is None else most, seed)
    return source.chosen(rows), Stream(source, rows, FinishedParts(memory.folder / "finished"))


_SHARE_OF_MACHINE = 4


@contextmanager
def row_memory(given: int | None, copies: float, model_run: str, *fingerprints: str) -> Iterator[RowMemory]:
    """The memory that rows may take, and a folder for the others, which is removed when a training has come to its end.

    Args:
        given: bytes; None for a quarter of what this process may have.
        copies: see RowMemory.
        model_run: the Trainer's `<pipeline root>/Trainer/model_run/<execution>`; the folder is beside those of all
            executions. In an object store, it is a temporary local folder, which is not found again.
        fingerprints: of all that decides what the training comes to.
    """
    most = machine_memory() // _SHARE_OF_MACHINE if given is None else given
    if "://" in model_run or not model_run:
        with tempfile.TemporaryDirectory() as temporary:
            yield RowMemory(most, Path(temporary), copies)
        return
    name = hashlib.sha256("\n".join(fingerprints).encode()).hexdigest()[:16]
    folder = Path(model_run).parents[1] / "unfinished" / f"rows-{name}"
    for other in folder.parent.glob("rows-*"):
        # Of a training that nobody starts again as it was.
        if other != folder:
            shutil.rmtree(other)
    yield RowMemory(most, folder, copies)
    # Not where an exception ends it.
    shutil.rmtree(folder, ignore_errors=True)


def files_fingerprint(file_patterns: Sequence[str]) -> str:
    """The names and sizes of files: they are those of a step whose result is not changed later on."""
    files = sorted(path for pattern in file_patterns for path in tf.io.gfile.glob(pattern))
    return "\n".join(f"{path} {tf.io.gfile.stat(path).length}" for path in files)
