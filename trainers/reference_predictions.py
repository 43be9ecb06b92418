"""What the training graph predicts for a split."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from serving.reference_predictions import ReferencePredictions
from trainers.dense_batch import dense_batch
from trainers.transformed_split import TransformedSplit


def reference_predictions(
    model: keras.Model, split: TransformedSplit, labels: Sequence[str], batch_size: int = 1024
) -> ReferencePredictions:
    """The Keras model's own probabilities and best labels for each example of the split."""
    batches = tf.data.Dataset.range(len(split.ids)).batch(batch_size)
    probabilities = model.predict(batches.map(lambda rows: dense_batch(split.features, rows)), verbose=0)
    return ReferencePredictions(split.ids, [labels[best] for best in probabilities.argmax(axis=1)], probabilities)
