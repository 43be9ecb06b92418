"""A split of photos as the model sees them, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf

from serving.export import LABEL
from serving.signatures.image import ERROR, IMAGE
from trainers.transform_graph import TransformGraph

# The serialized example, among the features of a batch.
RECORD = "record"

Batch = dict[str, tf.Tensor]


@dataclass(frozen=True)
class Photos:
    """Photos that stay encoded until their batch is made, so that memory does not grow with their number.

    Attributes:
        records: serialized tf.Examples, one at a time.
        transform: string [batch] of them to the features `image`, `label` and `error`.
    """

    records: tf.data.Dataset
    transform: Callable[[tf.Tensor], Batch]

    def batches(self, batch_size: int, records: tf.data.Dataset | None = None) -> tf.data.Dataset:
        """Batches of `record`, `image`, `label` and `error`; of all records, or of those given instead."""

        @tf.autograph.experimental.do_not_convert
        def features(serialized: tf.Tensor) -> Batch:
            return {RECORD: serialized, **self.transform(serialized)}

        chosen = self.records if records is None else records
        # The decoder works on the photos of a batch in parallel: one batch ahead is enough to keep the training busy.
        return chosen.batch(batch_size).map(features).prefetch(1)


def read_photos(file_patterns: Sequence[str], graph: TransformGraph) -> Photos:
    """The photos of gzipped TFRecord files of raw tf.Examples, in the order of the files' names.

    Args:
        file_patterns: as Trainer's FnArgs gives them.
        graph: what makes model features.
    """
    raw_feature_spec = graph.raw_feature_spec

    def transform(serialized: tf.Tensor) -> Batch:
        features = graph(tf.io.parse_example(serialized, raw_feature_spec))
        return {name: features[name] for name in (IMAGE, LABEL, ERROR)}

    files = sorted(path for pattern in file_patterns for path in tf.io.gfile.glob(pattern))
    return Photos(tf.data.TFRecordDataset(files, compression_type="GZIP"), transform)


def is_usable(batch: Batch) -> tf.Tensor:
    """bool [batch]: which photos have pixels and a known label."""
    return tf.logical_and(tf.equal(batch[ERROR], ""), batch[LABEL] >= 0)


def is_held_out(batch: Batch) -> tf.Tensor:
    """bool [batch]: a tenth of the photos, always the same, for a training to watch itself on."""
    return tf.equal(tf.strings.to_hash_bucket_fast(batch[RECORD], 10), 0)
