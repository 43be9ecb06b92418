"""What the training graph predicts for a split of photos."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serving.reference_predictions import ReferencePredictions, example_id
from serving.signatures.image import ERROR, IMAGE
from trainers.image_classifier import ImageClassifier
from trainers.photos import RECORD, Photos

BATCH_SIZE = 32


def photo_predictions(classifier: ImageClassifier, photos: Photos, labels: Sequence[str]) -> ReferencePredictions:
    """The classifier's own probabilities and best labels for each photo that can be used, its label known or not.

    Args:
        classifier: as it came out of training, not what is exported.
        photos: the split.
        labels: the label vocabulary.
    """
    ids: list[str] = []
    rows = [np.zeros([0, len(labels)], np.float32)]
    for batch in photos.batches(BATCH_SIZE):
        good = np.flatnonzero(batch[ERROR].numpy() == b"")
        ids.extend(example_id(batch[RECORD].numpy()[row]) for row in good)
        rows.append(classifier.predict(batch[IMAGE]).numpy()[good])
    probabilities = np.concatenate(rows)
    return ReferencePredictions(ids, [labels[best] for best in probabilities.argmax(axis=1)], probabilities)
