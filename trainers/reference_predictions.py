"""What the training graph predicts for a split."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from serving.reference_predictions import ReferencePredictions
from trainers.transformed_split import TransformedSplit


def reference_predictions(
    model: keras.Model, split: TransformedSplit, labels: Sequence[str], batch_size: int = 1024
) -> ReferencePredictions:
    """The Keras model's own probabilities and best labels for each example of the split."""
    probabilities = model.predict(split.features, batch_size=batch_size, verbose=0)
    return ReferencePredictions(split.ids, [labels[best] for best in probabilities.argmax(axis=1)], probabilities)
