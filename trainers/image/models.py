"""Image classifiers: what a trainer makes of a backbone, and the form that is exported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import tensorflow as tf

from serving.signatures.common import Features
from serving.signatures.image import IMAGE
from trainers.image.precision import bfloat16_function, float32_function, int8_function, precision_gain
from trainers.options import ImagePrecision
from trainers.warm_start import MeaningOfWeights


@dataclass(frozen=True)
class ImageClassifier:
    """What is exported, and what reference predictions are made with.

    Attributes:
        predict: pixels, float32 [batch, height, width, 3], to probabilities, float32 [batch, classes].
        model: the Keras model behind it, or None where there is none.
        start: from where its training began, if it was to begin with the served model.
        meaning: of the model's weights, for the next training to begin with them; None where none is to.
        tried: the backbones among which its own was chosen, for the provenance; {} where it was given.
    """

    predict: Callable[[tf.Tensor], tf.Tensor]
    model: keras.Model | None
    start: str = ""
    meaning: MeaningOfWeights | None = None
    tried: Mapping[str, Any] = field(default_factory=dict)

    def traced(self, height: int, width: int) -> ImageClassifier:
        """The same as one graph for photos of this size: traced once, which takes seconds, however often it is used."""
        pixels = tf.TensorSpec([None, height, width, 3], tf.float32)
        return replace(self, predict=tf.function(self.predict, input_signature=[pixels], autograph=False))


@dataclass(frozen=True)
class FrozenClassifier:
    """What is exported, its weights constants.

    Attributes:
        predict: features by name -> probabilities, float32 [batch, classes].
        provenance: of the numbers it computes with: `precision`, and what a lower one gained here, see precision_gain.
    """

    predict: Callable[[Features], tf.Tensor]
    provenance: dict[str, Any]


def frozen_classifier(
    classifier: ImageClassifier,
    height: int,
    width: int,
    precision: ImagePrecision,
    photos: Iterable[tf.Tensor] = (),
) -> FrozenClassifier:
    """Freeze a classifier.

    Args:
        classifier: takes pixels.
        height: of the pixels, which are the feature `image`.
        width: likewise.
        precision: what the constants and the arithmetic are in.
        photos: batches of pixels, for int8, see int8_function.
    """
    pixels = tf.TensorSpec([None, height, width, 3], tf.float32)
    frozen = float32_function(classifier.predict, pixels)
    provenance: dict[str, Any] = {"precision": precision}
    if precision != "float32":
        in_float32 = frozen
        if precision == "int8":
            frozen = int8_function(classifier.predict, pixels, photos)
        else:
            frozen = bfloat16_function(classifier.predict, pixels)
        provenance["time_of_float32"] = precision_gain(frozen, in_float32, height, width)

    def predict(features: Features) -> tf.Tensor:
        # Convolutions of oneDNN fail on a batch of no photo: it gets one, whose answer nobody sees.
        count = tf.shape(features[IMAGE])[0]
        one_of_none = tf.zeros([1 - tf.minimum(count, 1), height, width, 3])
        return frozen(tf.concat([features[IMAGE], one_of_none], axis=0))[:count]

    return FrozenClassifier(predict, provenance)
