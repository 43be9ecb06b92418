"""A classifier of photos as a function that can be exported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from serving.export import freeze
from serving.signatures.image import IMAGE
from serving.signatures.raw_features import Features
from trainers.bfloat16_function import bfloat16_function
from trainers.image_classifier import ImageClassifier
from trainers.precision import Precision
from trainers.precision_gain import precision_gain


@dataclass(frozen=True)
class FrozenClassifier:
    """What is exported, its weights constants.

    Attributes:
        predict: features by name -> probabilities, float32 [batch, classes].
        provenance: of the numbers it computes with: `precision`, and what a lower one gained here, see precision_gain.
    """

    predict: Callable[[Features], tf.Tensor]
    provenance: dict[str, Any]


def frozen_classifier(classifier: ImageClassifier, height: int, width: int, precision: Precision) -> FrozenClassifier:
    """Freeze a classifier.

    Args:
        classifier: takes pixels.
        height: of the pixels, which are the feature `image`.
        width: likewise.
        precision: what the constants and the arithmetic are in.
    """
    pixels = tf.TensorSpec([None, height, width, 3], tf.float32)
    frozen = freeze(classifier.predict, pixels)
    provenance: dict[str, Any] = {"precision": precision}
    if precision == "bfloat16":
        in_float32, frozen = frozen, bfloat16_function(classifier.predict, pixels)
        provenance["time_of_float32"] = precision_gain(frozen, in_float32, height, width)
    return FrozenClassifier(lambda features: frozen(features[IMAGE]), provenance)
