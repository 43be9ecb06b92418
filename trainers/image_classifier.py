"""A model of photos, whatever made it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import keras
import tensorflow as tf

from trainers.warm_start import MeaningOfWeights


@dataclass(frozen=True)
class ImageClassifier:
    """What is exported, and what reference predictions are made with.

    Attributes:
        predict: pixels, float32 [batch, height, width, 3], to probabilities, float32 [batch, classes].
        model: the Keras model behind it, or None where there is none.
        start: from where its training began, if it was to begin with the served model.
        meaning: of the model's weights, for the next training to begin with them; None where none is to.
    """

    predict: Callable[[tf.Tensor], tf.Tensor]
    model: keras.Model | None
    start: str = ""
    meaning: MeaningOfWeights | None = None

    def traced(self, height: int, width: int) -> ImageClassifier:
        """The same as one graph for photos of this size: traced once, which takes seconds, however often it is used."""
        pixels = tf.TensorSpec([None, height, width, 3], tf.float32)
        return replace(self, predict=tf.function(self.predict, input_signature=[pixels], autograph=False))
