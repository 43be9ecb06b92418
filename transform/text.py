"""Preprocessing of texts: the only one there is, for training and for serving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from serving.export import LABEL
from transform.dense_column import dense_column
from transform.kept_values import kept_values
from transform.label_ids import label_ids
from transform.normalized_text import normalized_text
from transform.preprocessing_error import PreprocessingError
from transform.term_vocabulary import term_vocabulary
from transform.text_options import TextOptions
from transform.text_terms import distinct, terms, words

TERMS = "terms"
WEIGHTS = "weights"


def preprocessing_fn(
    inputs: Mapping[str, tf.Tensor | tf.SparseTensor], custom_config: Mapping[str, Any]
) -> dict[str, tf.Tensor]:
    """Turn texts into the model's features.

    Args:
        inputs: the raw features of the schema, each [batch] or sparse [batch, n].
        custom_config: `preprocessing`, the JSON of TextOptions.

    Returns:
        `terms`: int64 [batch, maximum_length], the different known terms of the text, each as its place in the
        vocabulary + 1, then 0 to the end.
        `weights`: float32 [batch, maximum_length], the tf-idf of each, of length 1 together; 0 to the end. A text
        without any known term is all 0.
        `label`: int64 [batch], -1 for a missing or unlisted label.

    Raises:
        PreprocessingError: the column holds no text.
    """
    options = TextOptions.model_validate_json(custom_config["preprocessing"])
    texts = dense_column(inputs[options.column])
    if texts.dtype != tf.string:
        raise PreprocessingError(
            f"the column {options.column!r} holds numbers, expected text; preprocessing.column names the text column"
        )
    outputs = weighted_terms(texts, options)
    if options.label.column in inputs:
        outputs[LABEL] = label_ids(inputs[options.label.column], options.label)
    return outputs


def weighted_terms(texts: tf.Tensor, options: TextOptions) -> dict[str, tf.Tensor]:
    """The features `terms` and `weights` of texts, string [batch]."""
    tokens = words(normalized_text(texts, options.maximum_bytes))
    found, counts = distinct(terms(tokens, options.word_ngrams, options.character_ngrams))
    # A text has each of its terms once here, so the count of a term is the number of texts that have it.
    vocabulary = term_vocabulary(found, options.minimum_term_count, options.maximum_terms)
    text_count = tft.sum(tf.ones_like(texts, tf.int64), name="text_count")
    ids = _vocabulary_table(vocabulary, tf.lookup.TextFileIndex.LINE_NUMBER, -1).lookup(found.flat_values)
    text_counts = _vocabulary_table(vocabulary, 0, 0).lookup(found.flat_values)

    known = ids >= 0
    weights = tf_idf(counts.flat_values, text_counts, text_count)
    shape = [None, options.maximum_length]
    dense_weights = kept_values(counts.with_flat_values(weights), known).to_tensor(shape=shape)
    return {
        TERMS: kept_values(counts.with_flat_values(ids + 1), known).to_tensor(shape=shape),
        # Of a text without a known term, 0 / 0: it stays 0.
        WEIGHTS: tf.math.divide_no_nan(dense_weights, tf.norm(dense_weights, axis=1, keepdims=True)),
    }


def tf_idf(counts: tf.Tensor, text_counts: tf.Tensor, texts: tf.Tensor) -> tf.Tensor:
    """float32 [n]: (1 + ln count) * (1 + ln((1 + texts) / (1 + text_count))), as scikit-learn's with sublinear_tf.

    Args:
        counts: int64 [n], how often each term occurs in its text.
        text_counts: int64 [n], how many texts have it.
        texts: int64 [], how many there are.
    """
    frequency = 1 + tf.math.log(tf.cast(counts, tf.float32))
    return frequency * (1 + tf.math.log(tf.cast(1 + texts, tf.float32) / tf.cast(1 + text_counts, tf.float32)))


def _vocabulary_table(path: tf.Tensor, value_index: int, default: int) -> tf.lookup.StaticHashTable:
    """Term -> a column of its line `text_count term` in the vocabulary's file."""
    initializer = tf.lookup.TextFileInitializer(path, tf.string, 1, tf.int64, value_index, delimiter=" ")
    return tf.lookup.StaticHashTable(initializer, default_value=default)
