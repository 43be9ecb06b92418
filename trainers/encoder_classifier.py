"""A convolutional encoder of token sequences."""

from __future__ import annotations

import keras
import tensorflow as tf

from serving.signatures.raw_features import Features
from trainers.dense_batch import Column
from trainers.text_classifier import TextClassifier
from trainers.text_options import EncoderOptions
from transform.text import FIRST_KNOWN_TOKEN, TOKENS


def encoder_classifier(vocabulary_size: int, classes: int, options: EncoderOptions) -> TextClassifier:
    """Filters over embedded tokens, of which each gives its best match (Kim, EMNLP 2014); to be trained.

    A text without tokens matches nothing, and gets what the biases say; one of unknown tokens only, what training made
    of those it did not know.

    Args:
        vocabulary_size: how many tokens are known.
        classes: how many labels there are.
        options: widths and dropout.
    """
    tokens = keras.Input([None], name=TOKENS, dtype="int32")
    # What fills a row up is no token: it is 0 before the filters, and nothing after them.
    present = keras.ops.cast(tokens > 0, "float32")[:, :, None]
    rows = vocabulary_size + FIRST_KNOWN_TOKEN
    embedded = keras.layers.Embedding(rows, options.embedding_width, name=f"{TOKENS}_embedding")(tokens)
    embedded = keras.layers.Dropout(options.dropout)(embedded * present)
    matches = [
        keras.ops.max(
            keras.layers.Conv1D(options.filters, width, padding="same", activation="relu")(embedded) * present, axis=1
        )
        for width in options.filter_widths
    ]
    best = matches[0] if len(matches) == 1 else keras.layers.concatenate(matches)
    logits = keras.layers.Dense(classes)(keras.layers.Dropout(options.dropout)(best))
    return TextClassifier.of({TOKENS: tokens}, [keras.layers.Softmax()(logits)], ragged_tokens)


def ragged_tokens(features: Features) -> dict[str, Column]:
    """The tokens of transform/text.py without what they are filled up with; one at least, for the maximum."""
    lengths = tf.math.count_nonzero(features[TOKENS], axis=1)
    return {TOKENS: tf.RaggedTensor.from_tensor(tf.cast(features[TOKENS], tf.int32), lengths=tf.maximum(lengths, 1))}
