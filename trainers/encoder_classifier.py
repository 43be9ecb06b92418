"""A convolutional encoder of token sequences."""

from __future__ import annotations

import keras
import tensorflow as tf

from serving.signatures.raw_features import Features
from trainers.dense_batch import Column
from trainers.fit_text import fit_text
from trainers.text_classifier import TextClassifier
from trainers.text_options import EncoderOptions
from trainers.transformed_split import TransformedSplit
from transform.text import FIRST_KNOWN_TOKEN, TOKENS


def encoder_classifier(
    train: TransformedSplit, vocabulary_size: int, classes: int, options: EncoderOptions
) -> TextClassifier:
    """Train filters over embedded tokens, of which each gives its best match (Kim, EMNLP 2014).

    A text without tokens matches nothing, and gets what the biases say; one of unknown tokens only, what training made
    of those it did not know.

    Args:
        train: what `ragged_tokens` makes of the features of transform/text.py.
        vocabulary_size: how many tokens are known.
        classes: how many labels there are.
        options: how to train.
    """
    tokens = keras.Input([None], name=TOKENS, dtype="int32")
    # What fills a row up is no token: it is 0 before the filters, and nothing after them.
    present = keras.ops.cast(tokens > 0, "float32")[:, :, None]
    embedded = keras.layers.Embedding(vocabulary_size + FIRST_KNOWN_TOKEN, options.embedding_width)(tokens) * present
    embedded = keras.layers.Dropout(options.dropout)(embedded)
    matches = [
        keras.ops.max(
            keras.layers.Conv1D(options.filters, width, padding="same", activation="relu")(embedded) * present, axis=1
        )
        for width in options.filter_widths
    ]
    best = matches[0] if len(matches) == 1 else keras.layers.concatenate(matches)
    logits = keras.layers.Dense(classes)(keras.layers.Dropout(options.dropout)(best))
    return TextClassifier(fit_text({TOKENS: tokens}, [keras.layers.Softmax()(logits)], train, options), ragged_tokens)


def ragged_tokens(features: Features) -> dict[str, Column]:
    """The tokens of transform/text.py without what they are filled up with; one at least, for the maximum."""
    lengths = tf.math.count_nonzero(features[TOKENS], axis=1)
    return {TOKENS: tf.RaggedTensor.from_tensor(tf.cast(features[TOKENS], tf.int32), lengths=tf.maximum(lengths, 1))}
