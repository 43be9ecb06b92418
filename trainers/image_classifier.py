"""A model of photos, whatever made it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import tensorflow as tf


@dataclass(frozen=True)
class ImageClassifier:
    """What is exported, and what reference predictions are made with.

    Attributes:
        predict: pixels, float32 [batch, height, width, 3], to probabilities, float32 [batch, classes].
        model: the Keras model behind it, or None where there is none.
    """

    predict: Callable[[tf.Tensor], tf.Tensor]
    model: keras.Model | None
