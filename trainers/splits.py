"""Splits of examples as a model sees them: read, put through Transform's graph, batched."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform.saved.saved_transform_io_v2 import SavedModelLoader

from serving.missing_values import MISSING_FLOAT, MISSING_INTEGER
from serving.reference_predictions import example_id
from serving.signatures.common import LABEL
from trainers.errors import TrainingError
from transform.labels import dense_column


def data_fingerprint(*split_fingerprints: str) -> str:
    """SHA-256 over the fingerprints of the splits, in the order in which they are given."""
    return hashlib.sha256("".join(split_fingerprints).encode()).hexdigest()


Column: TypeAlias = np.ndarray | tf.Tensor | tf.RaggedTensor


def dense_batch(columns: Mapping[str, Column], rows: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
    """Some of the rows, int64 [n], or all; ragged columns are filled up with 0 to the longest of these rows."""
    chosen = columns if rows is None else {name: tf.gather(column, rows) for name, column in columns.items()}
    return {
        name: column.to_tensor() if isinstance(column, tf.RaggedTensor) else tf.convert_to_tensor(column)
        for name, column in chosen.items()
    }


class TransformGraph(tf.Module):
    """What tft.TransformFeaturesLayer does, without being a Keras layer, which is traced once more when it is saved.

    Args:
        transform_output: where Transform wrote its graph.
    """

    def __init__(self, transform_output: tft.TFTransformOutput) -> None:
        super().__init__(name="transform")
        self._output = transform_output
        self._loader = SavedModelLoader(transform_output.transform_savedmodel_dir)
        # An export takes tables and assets along where it finds them among attributes.
        trackable = tf.__internal__.tracking.AutoTrackable
        self._tracked = [value for value in vars(self._loader).values() if isinstance(value, trackable)]

    @property
    def raw_feature_spec(self) -> Mapping[str, Any]:
        """What tf.io.parse_example makes of the raw examples that the graph takes."""
        spec: Mapping[str, Any] = self._output.raw_feature_spec()
        return spec

    def __call__(self, features: Mapping[str, tf.Tensor | tf.SparseTensor]) -> dict[str, tf.Tensor]:
        """The transformed features that can be computed from these raw ones; the label may be missing among them."""
        transformed: dict[str, tf.Tensor] = self._loader.apply_transform_model(features)
        return transformed


@dataclass(frozen=True)
class TransformedSplit:
    """A split in memory.

    Attributes:
        ids: the id of each example, see serving.reference_predictions.
        features: the model's inputs by name, arrays or ragged tensors of n rows.
        labels: int64 [n], the number of each label.
        left_out: how many examples had no usable label.
        fingerprint: SHA-256 over all examples of the split, whatever their order in the files.
        weights: float64 [n], how much each example counts; None where all count the same.
    """

    ids: list[str]
    features: dict[str, Column]
    labels: np.ndarray
    left_out: int
    fingerprint: str
    weights: np.ndarray | None = None

    @property
    def truth(self) -> dict[str, int]:
        """Id -> the number of its label."""
        return dict(zip(self.ids, self.labels.tolist(), strict=True))


@dataclass(frozen=True)
class TransformedBatch:
    """Some examples, as they come out of Transform's graph.

    Attributes:
        ids: of all of them.
        features: the model's inputs by name, of those that have a usable label.
        labels: int64 [n], of all; negative for one that is not usable.
        weights: float64 [n], of all.
    """

    ids: list[str]
    features: Mapping[str, Column]
    labels: np.ndarray
    weights: np.ndarray


# Rows that are transformed at once; of texts of 300 characters, 2,048 are 150 MB of terms.
BATCH_SIZE = 2048


def read_transformed_split(
    file_patterns: Sequence[str],
    transform: TransformGraph,
    inputs: Callable[[Mapping[str, tf.Tensor]], Mapping[str, Column]] = dict,
    batch_size: int = BATCH_SIZE,
    weight: str = "",
) -> TransformedSplit:
    """Read gzipped TFRecord files of raw tf.Examples, in the order of their names; arguments are transformed_batches'.

    Raises:
        TrainingError: a weight is missing, negative or no number.
    """
    return joined_split(list(transformed_batches(file_patterns, transform, inputs, batch_size, weight)), weight)


def transformed_batches(
    file_patterns: Sequence[str],
    transform: TransformGraph,
    inputs: Callable[[Mapping[str, tf.Tensor]], Mapping[str, Column]] = dict,
    batch_size: int = BATCH_SIZE,
    weight: str = "",
) -> Iterator[TransformedBatch]:
    """The examples of gzipped TFRecord files, in the order of the files' names, so many at a time.

    Args:
        file_patterns: as Trainer's FnArgs gives them.
        transform: the graph that makes model features.
        inputs: what becomes of a batch of these features; it may leave padding out, for the memory's sake.
        batch_size: how many examples are transformed at once.
        weight: the raw column of the examples' weights; "" for none.

    Raises:
        TrainingError: there is no such column of numbers.
    """
    raw_feature_spec = transform.raw_feature_spec
    if weight and (weight not in raw_feature_spec or raw_feature_spec[weight].dtype == tf.string):
        raise TrainingError(
            f"data.weight: the schema has no column {weight!r} of numbers; expected one with the weight of each row"
        )

    transform_records = _record_transform(transform, inputs, weight)

    def transformed(records: tf.Tensor) -> TransformedBatch:
        columns, labels, weights = transform_records(records)
        ids = [example_id(record) for record in records.numpy()]
        return TransformedBatch(ids, columns, labels.numpy(), weights.numpy())

    files = sorted(path for pattern in file_patterns for path in tf.io.gfile.glob(pattern))
    records = tf.data.TFRecordDataset(files, compression_type="GZIP").batch(batch_size)
    yield from _side_by_side(transformed, records, os.cpu_count() or 1)


def _side_by_side(
    function: Callable[[tf.Tensor], TransformedBatch], items: Iterable[tf.Tensor], count: int
) -> Iterator[TransformedBatch]:
    """What a function makes of each, in their order, so many at a time: of texts, a graph keeps one core busy."""
    with ThreadPoolExecutor(count) as threads:
        begun: deque[Future[TransformedBatch]] = deque()
        for item in items:
            begun.append(threads.submit(function, item))
            if len(begun) > count:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


# A trainer reads one split after the other by the same graph, whose tracing and optimization take seconds.
@lru_cache(maxsize=1)
def _record_transform(
    transform: TransformGraph, inputs: Callable[[Mapping[str, tf.Tensor]], Mapping[str, Column]], weight: str
) -> Callable[[tf.Tensor], tuple[Mapping[str, Column], tf.Tensor, tf.Tensor]]:
    """Of serialized tf.Examples the features of those with a usable label, and all labels and weights."""
    raw_feature_spec = transform.raw_feature_spec

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def transform_records(serialized: tf.Tensor) -> tuple[Mapping[str, Column], tf.Tensor, tf.Tensor]:
        raw = tf.io.parse_example(serialized, raw_feature_spec)
        features = transform(raw)
        labels = features.pop(LABEL)
        usable = labels >= 0
        given = tf.cast(dense_column(raw[weight]), tf.float64) if weight else tf.ones_like(labels, tf.float64)
        return {name: _rows(column, usable) for name, column in inputs(features).items()}, labels, given

    return transform_records


def joined_split(batches: Sequence[TransformedBatch], weight: str = "") -> TransformedSplit:
    """All batches of a split.

    Raises:
        TrainingError: a weight, of the column named so, is missing, negative or no number.
    """
    ids = [id_ for batch in batches for id_ in batch.ids]
    labels = np.concatenate([batch.labels for batch in batches])
    weights = np.concatenate([batch.weights for batch in batches])
    usable = labels >= 0
    if weight:
        check_weights(weights[usable], weight)
    return TransformedSplit(
        ids=[id_ for id_, use in zip(ids, usable, strict=True) if use],
        features={name: joined_columns([batch.features[name] for batch in batches]) for name in batches[0].features},
        labels=labels[usable],
        left_out=int((~usable).sum()),
        fingerprint=hashlib.sha256("".join(sorted(ids)).encode()).hexdigest(),
        weights=weights[usable] if weight else None,
    )


def check_weights(weights: np.ndarray, column: str) -> None:
    """See that rows can be weighed.

    Args:
        weights: float64 [n], a missing one in the form of serving/missing_values.py.
        column: of the data, for messages.

    Raises:
        TrainingError: one is missing, negative or no number, or all are 0.
    """
    missing = (weights == MISSING_INTEGER) | (weights <= MISSING_FLOAT)
    bad = missing | ~np.isfinite(weights) | (weights < 0)
    if bad.any():
        found = "is missing" if missing[bad][0] else f"is {weights[bad][0]:g}"
        raise TrainingError(
            f"data.weight: the weight {column!r} of {int(bad.sum()):,} rows cannot be used, of the first it {found}; "
            "expected a number of at least 0 in each row: mend the values, or leave the rows out"
        )
    if len(weights) and not weights.any():
        raise TrainingError(f"data.weight: {column!r} is 0 in all {len(weights):,} rows, so that none of them counts")


def training_weights(split: TransformedSplit, classes: int, balanced: bool = False) -> np.ndarray | None:
    """float64 [n], 1 in the mean: how much each row counts in training; None where all count the same.

    Args:
        split: the rows, with their own weights, if they have any.
        classes: how many labels there are.
        balanced: whether each label that occurs counts the same in the sum, as scikit-learn's
            `class_weight="balanced"` has it.
    """
    if split.weights is None and not balanced:
        return None
    weights = np.ones(len(split.labels)) if split.weights is None else split.weights
    if balanced:
        of_labels = np.bincount(split.labels, weights, minlength=classes)
        weights = weights / np.where(of_labels > 0, of_labels, 1.0)[split.labels]
    return weights / weights.mean()


def _rows(column: Column, chosen: tf.Tensor) -> Column:
    return tf.ragged.boolean_mask(column, chosen)


def joined_columns(batches: Sequence[Column]) -> Column:
    """Rows of a feature, one batch after the other: an array, or a ragged tensor."""
    joined = tf.concat(batches, axis=0)
    return joined if isinstance(joined, tf.RaggedTensor) else joined.numpy()


Rows = tuple[Mapping[str, Column], np.ndarray]
# Among the rows of so many batches, those of like length come into one batch.
BATCHES_SORTED_TOGETHER = 16


def shuffled_batches(
    rows: Rows, batch_size: int, seed: int, by_length: bool = True, weights: np.ndarray | None = None
) -> tf.data.Dataset:
    """The rows in a new order in each pass, without end; features and labels, and their weights where there are any.

    One iterator serves all epochs (given arrays, Keras makes a new one for each, which costs more than an epoch over
    small data), and rows are gathered a batch at a time. Ragged columns are filled up to the longest row of their
    batch; so that this is little, rows that follow one another in the new order are put into batches by their length,
    unless `by_length` says that it does not matter.
    """
    features, labels = rows
    count = len(labels)
    # As tensors, once; what is an array here would be a constant of the dataset's graph.
    columns = {
        name: values if isinstance(values, tf.RaggedTensor) else tf.constant(values)
        for name, values in features.items()
    }
    numbers = tf.constant(labels)
    lengths = [values.row_lengths() for values in columns.values() if isinstance(values, tf.RaggedTensor)]

    # Functions without control flow of their own: AutoGraph would take a third of a second over them.
    @tf.autograph.experimental.do_not_convert
    def one_pass(_: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.shuffle(tf.range(count), seed=seed)
        if lengths and by_length:
            order = _by_length(order, tf.add_n(lengths), batch_size, seed)
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size)

    others = [numbers] if weights is None else [numbers, tf.constant(weights, tf.float32)]

    @tf.autograph.experimental.do_not_convert
    def taken(chosen: tf.Tensor) -> tuple[Any, ...]:
        return dense_batch(columns, chosen), *(tf.gather(other, chosen) for other in others)

    return tf.data.Dataset.counter().flat_map(one_pass).map(taken).prefetch(tf.data.AUTOTUNE)


def _by_length(order: tf.Tensor, lengths: tf.Tensor, batch_size: int, seed: int) -> tf.Tensor:
    """The rows of each BATCHES_SORTED_TOGETHER batches sorted by length; whole batches in any order, the rest last."""
    neighbours = tf.cast(tf.range(tf.size(order)) // (BATCHES_SORTED_TOGETHER * batch_size), tf.int64)
    longest = tf.reduce_max(lengths) + 1
    order = tf.gather(order, tf.argsort(neighbours * longest + tf.gather(lengths, order)))
    whole = tf.size(order) // batch_size * batch_size
    batches = tf.random.shuffle(tf.reshape(order[:whole], [-1, batch_size]), seed=seed)
    return tf.concat([tf.reshape(batches, [-1]), order[whole:]], axis=0)
