"""A network over a text embedding that exists."""

from __future__ import annotations

from collections.abc import Callable

import keras

from serving.signatures.raw_features import Features
from trainers.dense_batch import Column
from trainers.text_classifier import TextClassifier
from trainers.text_embedding import TextEmbedding
from trainers.text_options import HubOptions
from transform.text import TEXT

EMBEDDING = "embedding"


def embedded_texts(embedding: TextEmbedding) -> Callable[[Features], dict[str, Column]]:
    """What makes embeddings, float32 [batch, width], of the features of transform/text.py."""
    return lambda features: {EMBEDDING: embedding(features[TEXT])}


def hub_classifier(embedding: TextEmbedding, classes: int, options: HubOptions) -> TextClassifier:
    """A network over embeddings, which stay as they are; to be trained.

    A text without a known word gets the answer for whatever the embedding makes of it; for NaN or infinity, for 0.

    Args:
        embedding: the embedding.
        classes: how many labels there are.
        options: width and dropout.
    """
    vectors = keras.Input([embedding.width], name=EMBEDDING, dtype="float32")
    hidden = keras.layers.Dropout(options.dropout)(vectors)
    if options.hidden_units:
        hidden = keras.layers.Dense(options.hidden_units, activation="relu")(hidden)
        hidden = keras.layers.Dropout(options.dropout)(hidden)
    probabilities = keras.layers.Softmax()(keras.layers.Dense(classes)(hidden))
    resources = {"embedding": embedding}
    return TextClassifier.of({EMBEDDING: vectors}, [probabilities], embedded_texts(embedding), resources)
