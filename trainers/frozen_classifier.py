"""A classifier of photos as a function that can be exported."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from serving.export import freeze
from serving.signatures.image import IMAGE
from serving.signatures.raw_features import Features
from trainers.bfloat16_function import bfloat16_function
from trainers.image_classifier import ImageClassifier
from trainers.precision import Precision


def frozen_classifier(
    classifier: ImageClassifier, height: int, width: int, precision: Precision
) -> Callable[[Features], tf.Tensor]:
    """Features by name -> probabilities, float32 [batch, classes]; the weights are constants.

    Args:
        classifier: takes pixels.
        height: of the pixels, which are the feature `image`.
        width: likewise.
        precision: what the constants and the arithmetic are in.
    """
    pixels = tf.TensorSpec([None, height, width, 3], tf.float32)
    frozen = (bfloat16_function if precision == "bfloat16" else freeze)(classifier.predict, pixels)
    return lambda features: frozen(features[IMAGE])
