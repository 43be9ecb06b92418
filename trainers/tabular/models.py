"""Models of tables: a linear model and a network over numbers and embedded categories."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow_transform as tft

from trainers.tabular.options import TabularTrainerOptions
from transform.tabular import CATEGORIES, CATEGORY_VOCABULARY, NUMBERS


def build_model(
    features: Mapping[str, np.ndarray], vocabulary_size: int, classes: int, options: TabularTrainerOptions
) -> keras.Model:
    """A Keras model from the features of transform/tabular.py to probabilities, float32 [batch, classes]."""
    inputs, linear, network = {}, [], []
    penalty = keras.regularizers.L2(options.l2)
    if NUMBERS in features:
        inputs[NUMBERS] = keras.Input([features[NUMBERS].shape[1]], name=NUMBERS, dtype="float32")
        linear.append(keras.layers.Dense(classes, kernel_regularizer=penalty)(inputs[NUMBERS]))
        network.append(inputs[NUMBERS])
    if CATEGORIES in features:
        inputs[CATEGORIES] = keras.Input([features[CATEGORIES].shape[1]], name=CATEGORIES, dtype="int64")
        # Row 0 is the unknown category. It starts at zero and stays there unless training meets it: no information.
        rows = inputs[CATEGORIES] + 1
        weights = keras.layers.Embedding(
            vocabulary_size + 1,
            classes,
            embeddings_initializer="zeros",
            embeddings_regularizer=penalty,
            name=f"{CATEGORY_VOCABULARY}_linear",
        )(rows)
        linear.append(keras.ops.sum(weights, axis=1))
        if options.hidden_units:
            embedded = keras.layers.Embedding(
                vocabulary_size + 1, options.embedding_width, name=f"{CATEGORY_VOCABULARY}_embedding"
            )(rows)
            network.append(keras.layers.Flatten()(embedded))
    logits = linear[0] if len(linear) == 1 else keras.layers.add(linear)
    if options.hidden_units:
        hidden = network[0] if len(network) == 1 else keras.layers.concatenate(network)
        for width in options.hidden_units:
            hidden = keras.layers.Dense(width, activation="relu", kernel_regularizer=penalty)(hidden)
            hidden = keras.layers.Dropout(options.dropout)(hidden)
        logits = keras.layers.add([logits, keras.layers.Dense(classes)(hidden)])
    return keras.Model(inputs, keras.layers.Softmax()(logits))


def known_categories(transform_output: tft.TFTransformOutput, features: Mapping[str, np.ndarray]) -> list[str]:
    """The categories of all columns, in the order of their numbers."""
    if CATEGORIES not in features:
        return []
    # The tokens hold what is in the data, of whatever encoding.
    return [
        token.decode(errors="backslashreplace") for token in transform_output.vocabulary_by_name(CATEGORY_VOCABULARY)
    ]
