"""Preprocessing of texts: the only one there is, for training and for serving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from serving.signatures.common import LABEL
from transform.errors import PreprocessingError
from transform.labels import dense_column, label_ids, label_text
from transform.options import TextOptions
from transform.text_normalization import normalized_text, readable_text, select_values
from transform.vocabularies import term_vocabulary

# "!" and "?" say something, and so do emoji, which are symbols. Other punctuation separates, and so do the mark that
# chooses the look of the emoji before it, and what stands for bytes that are no text.
SEPARATORS = r"[^\pL\pM\pN\p{So}'!?]+|[\x{FE0F}\x{FFFD}]+"
LOOSE_APOSTROPHES = r"(^|[ !?])'+|'+([ !?]|$)"


@tf.function(autograph=False, reduce_retracing=True)
def words(texts: tf.Tensor) -> tf.RaggedTensor:
    """string [batch, n]: runs of letters, marks and digits, with the apostrophes inside of them; "!", "?", emoji alone.

    Args:
        texts: normalised, see normalized_text.
    """
    spaced = tf.strings.regex_replace(texts, SEPARATORS, " ")
    spaced = tf.strings.regex_replace(spaced, LOOSE_APOSTROPHES, r"\1 \2")
    return tf.strings.split(tf.strings.regex_replace(spaced, r"([!?\p{So}])", r" \1 "))


@tf.function(autograph=False, reduce_retracing=True)
def word_terms(tokens: tf.RaggedTensor, longest: int) -> tf.RaggedTensor:
    """string [batch, n]: words, then pairs of words `a_b`, and so on."""
    return tf.strings.ngrams(tokens, list(range(1, longest + 1)), separator="_")


@tf.function(autograph=False, reduce_retracing=True)
def character_terms(tokens: tf.RaggedTensor, shortest: int, longest: int) -> tf.RaggedTensor:
    """string [batch, n]: sequences of characters, short ones first; the space between two words is written `_`."""
    joined = tf.strings.reduce_join(tokens, axis=1, separator="_")
    characters = tf.strings.unicode_split(joined, "UTF-8")
    return tf.strings.ngrams(characters, list(range(shortest, longest + 1)), separator="")


@tf.function(autograph=False, reduce_retracing=True)
def distinct(values: tf.RaggedTensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
    """The different strings of each row in the order in which they first occur, and how often each does (int64)."""
    rows = values.value_rowids()
    # One number for a row and a string; two strings of a row get the same one once in 10^12 pairs.
    hashed = tf.strings.to_hash_bucket_fast(values.flat_values, 2**40)
    keys = tf.bitwise.left_shift(rows, tf.constant(40, tf.int64)) + hashed
    unique, places, counts = tf.unique_with_counts(keys, out_idx=tf.int64)
    count = tf.size(unique, tf.int64)
    first = tf.math.unsorted_segment_min(tf.range(tf.size(keys, tf.int64)), places, count)
    distinct_values = tf.RaggedTensor.from_value_rowids(
        tf.gather(values.flat_values, first), tf.gather(rows, first), nrows=values.nrows(), validate=False
    )
    return distinct_values, distinct_values.with_flat_values(counts)


# Each kind of term has a vocabulary of its name, and the feature `<kind>` with its weights in `<kind>_weights`.
WORDS = "words"
CHARACTERS = "characters"
WEIGHTS_OF = {WORDS: "word_weights", CHARACTERS: "character_weights"}
TOKENS = "tokens"
TEXT = "text"
# A sequence's numbers: 0 to the end of it, 1 for a token that is not known, then the vocabulary.
UNKNOWN_TOKEN = 1
FIRST_KNOWN_TOKEN = 2


def preprocessing_fn(
    inputs: Mapping[str, tf.Tensor | tf.SparseTensor], custom_config: Mapping[str, Any]
) -> dict[str, tf.Tensor]:
    """Turn texts into the model's features.

    Args:
        inputs: the raw features of the schema, each [batch] or sparse [batch, n].
        custom_config: `preprocessing`, the JSON of TextOptions.

    Returns:
        With `features: terms`, what weighted_terms gives: `words` and `word_weights`, `characters` and
        `character_weights`, as far as they are switched on; with `sequence`, `tokens`, what token_sequence gives; with
        `text`, `text`: string [batch], valid UTF-8, otherwise as it was; with `terms_and_text`, both.
        And `label`: int64 [batch], -1 for a missing or unlisted label.

    Raises:
        PreprocessingError: the column holds no text.
    """
    options = TextOptions.model_validate_json(custom_config["preprocessing"])
    texts = dense_column(inputs[options.column])
    if texts.dtype != tf.string:
        raise PreprocessingError(
            f"the column {options.column!r} holds numbers, expected text; preprocessing.column names the text column"
        )
    labels = inputs.get(options.label.column)
    class_of_text = tf.fill(tf.shape(texts), "") if labels is None else label_text(labels, options.label)
    outputs: dict[str, Any] = {}
    if options.features in ("terms", "terms_and_text"):
        outputs |= _terms_of_each_kind(texts, class_of_text, options)
    if options.features == "sequence":
        outputs[TOKENS] = token_sequence(texts, class_of_text, options)
    if options.features in ("text", "terms_and_text"):
        outputs[TEXT] = readable_text(texts, options.maximum_bytes)
    if labels is not None:
        outputs[LABEL] = label_ids(labels, options.label)
    return outputs


def _terms_of_each_kind(texts: tf.Tensor, labels: tf.Tensor, options: TextOptions) -> dict[str, tf.Tensor]:
    tokens = words(normalized_text(texts, options.maximum_bytes))
    text_count = tft.sum(tf.ones_like(texts, tf.int64), name="text_count")
    outputs: dict[str, tf.Tensor] = {}
    if options.word_ngrams:
        found = word_terms(tokens, options.word_ngrams)
        outputs[WORDS], outputs[WEIGHTS_OF[WORDS]] = weighted_terms(found, WORDS, labels, text_count, options)
    if options.character_ngrams is not None:
        found = character_terms(tokens, *options.character_ngrams)
        terms = weighted_terms(found, CHARACTERS, labels, text_count, options)
        outputs[CHARACTERS], outputs[WEIGHTS_OF[CHARACTERS]] = terms
    return outputs


def weighted_terms(
    found: tf.RaggedTensor, vocabulary_name: str, labels: tf.Tensor, text_count: tf.Tensor, options: TextOptions
) -> tuple[tf.Tensor, tf.Tensor]:
    """The terms of texts as numbers, and their tf-idf.

    Args:
        found: string [batch, n], all terms of each text.
        vocabulary_name: of the vocabulary that is made of them.
        labels: string [batch], the texts' classes, for a vocabulary by information gain.
        text_count: int64 [], how many texts the vocabulary is made of.
        options: how many terms count.

    Returns:
        int64 [batch, maximum_length], the different known terms of the text, each as its place in the vocabulary + 1,
        then 0 to the end.
        float32 [batch, maximum_length], the tf-idf of each, of length 1 together; 0 to the end. A text without any
        known term is all 0.
    """
    found, counts = distinct(found)
    # A text has each of its terms once here, so the count of a term is the number of texts that have it.
    vocabulary = _vocabulary(found, vocabulary_name, labels, options)
    ids = _vocabulary_table(vocabulary, tf.lookup.TextFileIndex.LINE_NUMBER, -1).lookup(found.flat_values)
    text_counts = _vocabulary_table(vocabulary, 0, 0).lookup(found.flat_values)

    known = ids >= 0
    weights = tf_idf(counts.flat_values, text_counts, text_count)
    shape = [None, options.maximum_length]
    dense_weights = select_values(counts.with_flat_values(weights), known).to_tensor(shape=shape)
    return (
        select_values(counts.with_flat_values(ids + 1), known).to_tensor(shape=shape),
        # Of a text without a known term, 0 / 0: it stays 0.
        tf.math.divide_no_nan(dense_weights, tf.norm(dense_weights, axis=1, keepdims=True)),
    )


def token_sequence(texts: tf.Tensor, labels: tf.Tensor, options: TextOptions) -> tf.Tensor:
    """int64 [batch, maximum_length]: the words or characters of each text, in their order.

    Each is its place in the vocabulary + 2, 1 where it is not known; then 0 to the end.

    Args:
        texts: string [batch].
        labels: string [batch], their classes, for a vocabulary by information gain.
        options: which tokens, and how many.
    """
    tokens = words(normalized_text(texts, options.maximum_bytes))
    if options.character_ngrams is not None:
        tokens = character_terms(tokens, *options.character_ngrams)
    vocabulary = _vocabulary(distinct(tokens)[0], TOKENS, labels, options)
    ids = _vocabulary_table(vocabulary, tf.lookup.TextFileIndex.LINE_NUMBER, -1).lookup(tokens.flat_values)
    numbers = tf.where(ids < 0, tf.constant(UNKNOWN_TOKEN, tf.int64), ids + FIRST_KNOWN_TOKEN)
    return tokens.with_flat_values(numbers).to_tensor(shape=[None, options.maximum_length])


def _vocabulary(found: tf.RaggedTensor, name: str, labels: tf.Tensor, options: TextOptions) -> tf.Tensor:
    return term_vocabulary(found, name, labels, options.vocabulary, options.minimum_term_count, options.maximum_terms)


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
