"""A split as the model sees it: raw examples read from files and put through Transform's graph."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from serving.export import LABEL
from serving.reference_predictions import example_id
from trainers.dense_batch import Column
from trainers.transform_graph import TransformGraph


@dataclass(frozen=True)
class TransformedSplit:
    """A split in memory.

    Attributes:
        ids: the id of each example, see serving.reference_predictions.
        features: the model's inputs by name, arrays or ragged tensors of n rows.
        labels: int64 [n], the number of each label.
        left_out: how many examples had no usable label.
        fingerprint: SHA-256 over all examples of the split, whatever their order in the files.
    """

    ids: list[str]
    features: dict[str, Column]
    labels: np.ndarray
    left_out: int
    fingerprint: str


def read_transformed_split(
    file_patterns: Sequence[str],
    transform: TransformGraph,
    inputs: Callable[[Mapping[str, tf.Tensor]], Mapping[str, Column]] = dict,
    batch_size: int = 4096,
) -> TransformedSplit:
    """Read gzipped TFRecord files of raw tf.Examples, in the order of their names.

    Args:
        file_patterns: as Trainer's FnArgs gives them.
        transform: the graph that makes model features.
        inputs: what becomes of a batch of these features; it may leave padding out, for the memory's sake.
        batch_size: how many examples are transformed at once.
    """
    raw_feature_spec = transform.raw_feature_spec

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def transformed(serialized: tf.Tensor) -> tuple[Mapping[str, Column], tf.Tensor]:
        features = transform(tf.io.parse_example(serialized, raw_feature_spec))
        labels = features.pop(LABEL)
        usable = labels >= 0
        return {name: _rows(column, usable) for name, column in inputs(features).items()}, labels

    ids: list[str] = []
    batches: list[Mapping[str, Column]] = []
    labels: list[np.ndarray] = []
    files = sorted(path for pattern in file_patterns for path in tf.io.gfile.glob(pattern))
    for records in tf.data.TFRecordDataset(files, compression_type="GZIP").batch(batch_size):
        ids.extend(example_id(record) for record in records.numpy())
        columns, numbers = transformed(records)
        batches.append(columns)
        labels.append(numbers.numpy())
    usable = np.concatenate(labels) >= 0
    return TransformedSplit(
        ids=[id_ for id_, use in zip(ids, usable, strict=True) if use],
        features={name: _joined([batch[name] for batch in batches]) for name in batches[0]},
        labels=np.concatenate(labels)[usable],
        left_out=int((~usable).sum()),
        fingerprint=hashlib.sha256("".join(sorted(ids)).encode()).hexdigest(),
    )


def _rows(column: Column, chosen: tf.Tensor) -> Column:
    return tf.ragged.boolean_mask(column, chosen)


def _joined(batches: Sequence[Column]) -> Column:
    joined = tf.concat(batches, axis=0)
    return joined if isinstance(joined, tf.RaggedTensor) else joined.numpy()
