"""Photos as the model sees them, a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tensorflow_transform as tft

from serving.export import LABEL
from serving.signatures.image import ERROR, IMAGE

# The serialized example, among the features of a batch.
RECORD = "record"


def transformed_photos(
    file_patterns: Sequence[str], transform_output: tft.TFTransformOutput, batch_size: int
) -> tf.data.Dataset:
    """Batches of `record`, `image`, `label` and `error`, in the order of the files' names.

    Photos stay encoded until their batch is made, so memory does not grow with their number.

    Args:
        file_patterns: gzipped TFRecord files of raw tf.Examples, as Trainer's FnArgs gives them.
        transform_output: the graph that makes model features, and the spec of what it takes.
        batch_size: photos in a batch.
    """
    files = sorted(path for pattern in file_patterns for path in tf.io.gfile.glob(pattern))
    records = tf.data.TFRecordDataset(files, compression_type="GZIP").batch(batch_size)
    return transformed(records, transform_output)


def transformed(records: tf.data.Dataset, transform_output: tft.TFTransformOutput) -> tf.data.Dataset:
    """Batches of serialized examples -> batches of `record`, `image`, `label` and `error`."""
    transform = transform_output.transform_features_layer()
    raw_feature_spec = transform_output.raw_feature_spec()

    @tf.autograph.experimental.do_not_convert
    def features(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        made = transform(tf.io.parse_example(serialized, raw_feature_spec))
        # A manifest may have no label for a photo that is to be served only.
        unknown = tf.fill([tf.size(serialized)], tf.constant(-1, tf.int64))
        return {RECORD: serialized, IMAGE: made[IMAGE], ERROR: made[ERROR], LABEL: made.get(LABEL, unknown)}

    # The decoder works on the photos of a batch in parallel: one batch ahead is enough to keep it busy.
    return records.map(features).prefetch(1)


def usable(batch: dict[str, tf.Tensor]) -> tf.Tensor:
    """bool [batch]: which photos have pixels and a known label."""
    return tf.logical_and(tf.equal(batch[ERROR], ""), batch[LABEL] >= 0)
