"""What a training of photos works on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainers.fine_tune_options import FineTuneOptions
from trainers.photo_split import PhotoSplit
from trainers.photos import Photos
from transform.image_options import Scaling


@dataclass(frozen=True)
class PhotoTraining:
    """Photos to learn from, and how.

    Attributes:
        photos: the training split.
        split: what is known of it besides the pixels.
        classes: how many labels there are.
        scaling: the range of the pixels.
        options: how to train.
        folder: features and the states of epochs, for a training that is killed to go on with.
    """

    photos: Photos
    split: PhotoSplit
    classes: int
    scaling: Scaling
    options: FineTuneOptions
    folder: Path

    @property
    def rows(self) -> np.ndarray:
        """Which of the split's photos are trained on: without those that early stopping looks at."""
        if self.options.early_stopping_patience is None:
            return np.arange(len(self.split.labels))
        return np.flatnonzero(~self.split.held_out)

    @property
    def class_weights(self) -> np.ndarray:
        """float [classes]: how much a photo of each class counts, 1 in the mean over all photos."""
        labels = self.split.labels
        if self.options.class_weights == "none":
            return np.ones(self.classes)
        return len(labels) / (self.classes * np.maximum(np.bincount(labels, minlength=self.classes), 1))

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.rows) // self.options.batch_size)
