"""A split as the model sees it: raw examples read from files and put through Transform's graph."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from serving.export import LABEL
from serving.reference_predictions import example_id


@dataclass(frozen=True)
class TransformedSplit:
    """A split in memory.

    Attributes:
        ids: the id of each example, see serving.reference_predictions.
        features: the model's inputs, arrays of n rows by name.
        labels: int64 [n], the number of each label.
        left_out: how many examples had no usable label.
        fingerprint: SHA-256 over all examples of the split, whatever their order in the files.
    """

    ids: list[str]
    features: dict[str, np.ndarray]
    labels: np.ndarray
    left_out: int
    fingerprint: str


def read_transformed_split(
    file_patterns: Sequence[str], transform_output: tft.TFTransformOutput, batch_size: int = 4096
) -> TransformedSplit:
    """Read gzipped TFRecord files of raw tf.Examples, in the order of their names.

    Args:
        file_patterns: as Trainer's FnArgs gives them.
        transform_output: the graph that makes model features, and the spec of what it takes.
    """
    transform = transform_output.transform_features_layer()
    raw_feature_spec = transform_output.raw_feature_spec()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def transformed(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        return transform(tf.io.parse_example(serialized, raw_feature_spec))

    ids: list[str] = []
    batches: list[dict[str, np.ndarray]] = []
    files = sorted(path for pattern in file_patterns for path in tf.io.gfile.glob(pattern))
    for records in tf.data.TFRecordDataset(files, compression_type="GZIP").batch(batch_size):
        ids.extend(example_id(record) for record in records.numpy())
        batches.append({name: values.numpy() for name, values in transformed(records).items()})
    columns = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]} if batches else {}
    labels = columns.pop(LABEL, np.zeros([0], np.int64))
    usable = labels >= 0
    return TransformedSplit(
        ids=[id_ for id_, use in zip(ids, usable, strict=True) if use],
        features={name: values[usable] for name, values in columns.items()},
        labels=labels[usable],
        left_out=int((~usable).sum()),
        fingerprint=hashlib.sha256("".join(sorted(ids)).encode()).hexdigest(),
    )
