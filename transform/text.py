"""Preprocessing of texts: the only one there is, for training and for serving."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
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


# Of a number that stands beside its row's.
_BITS = 40


@tf.function(autograph=False, reduce_retracing=True)
def distinct(values: tf.RaggedTensor) -> tf.RaggedTensor:
    """The different strings of each row in the order in which they first occur."""
    rows = values.value_rowids()
    # One number for a row and a string; two strings of a row get the same one once in 10^12 pairs.
    keys = _with_row(rows, tf.strings.to_hash_bucket_fast(values.flat_values, 2**_BITS))
    unique, places = tf.unique(keys, out_idx=tf.int64)
    first = tf.math.unsorted_segment_min(tf.range(tf.size(keys, tf.int64)), places, tf.size(unique, tf.int64))
    return tf.RaggedTensor.from_value_rowids(
        tf.gather(values.flat_values, first), tf.gather(rows, first), nrows=values.nrows(), validate=False
    )


@tf.function(autograph=False, reduce_retracing=True)
def distinct_numbers(values: tf.RaggedTensor) -> tuple[tf.RaggedTensor, tf.Tensor]:
    """The different numbers, below 2^40, of each row in the order in which they first occur, and how often each does.

    Args:
        values: int64 [batch, n].

    Returns:
        int64 [batch, n], and int64 [all of these].
    """
    unique, _, counts = tf.unique_with_counts(_with_row(values.value_rowids(), values.flat_values), out_idx=tf.int64)
    rows = tf.bitwise.right_shift(unique, tf.constant(_BITS, tf.int64))
    numbers = tf.bitwise.bitwise_and(unique, tf.constant(2**_BITS - 1, tf.int64))
    return tf.RaggedTensor.from_value_rowids(numbers, rows, nrows=values.nrows(), validate=False), counts


def _with_row(rows: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
    return tf.bitwise.left_shift(rows, tf.constant(_BITS, tf.int64)) + numbers


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
    # A text has each of its terms once there, so the count of a term is the number of texts that have it.
    vocabulary = _vocabulary(distinct(found), vocabulary_name, labels, options)
    numbers = _number_of_term(found.flat_values, vocabulary)
    known, counts = distinct_numbers(select_values(found.with_flat_values(numbers), numbers >= 0))
    text_counts = _texts_of_number(known.flat_values, vocabulary)

    shape = [None, options.maximum_length]
    weights = known.with_flat_values(tf_idf(counts, text_counts, text_count)).to_tensor(shape=shape)
    return (
        known.with_flat_values(known.flat_values + 1).to_tensor(shape=shape),
        # Of a text without a known term, 0 / 0: it stays 0.
        tf.math.divide_no_nan(weights, tf.norm(weights, axis=1, keepdims=True)),
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
    vocabulary = _vocabulary(distinct(tokens), TOKENS, labels, options)
    ids = _number_of_term(tokens.flat_values, vocabulary)
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


# A vocabulary's file has a line `text_count term` for each.
_LINE = tf.lookup.TextFileIndex.LINE_NUMBER
_TEXT_COUNT, _TERM = 0, 1


def _number_of_term(terms: tf.Tensor, vocabulary: tf.Tensor) -> tf.Tensor:
    """int64 [n]: the number of each term's line, -1 where it has none."""
    return _looked_up(terms, vocabulary, key=_TERM, value=_LINE, default=-1)


def _texts_of_number(numbers: tf.Tensor, vocabulary: tf.Tensor) -> tf.Tensor:
    """int64 [n]: how many texts have the term of each line."""
    return _looked_up(numbers, vocabulary, key=_LINE, value=_TEXT_COUNT, default=0)


def _looked_up(keys: tf.Tensor, vocabulary: tf.Tensor, key: int, value: int, default: int) -> tf.Tensor:
    """One part of a vocabulary's lines by another."""

    def lookup(keys: tf.Tensor, file: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Outside of the graph once the file is there: each call of the graph would go through all of it again.
        with nullcontext() if tf.is_symbolic_tensor(file) else tf.init_scope():
            initializer = tf.lookup.TextFileInitializer(file, keys.dtype, key, tf.int64, value, delimiter=" ")
            table = tf.lookup.StaticHashTable(initializer, default_value=default)
            size = table.size()
        return table.lookup(keys), size

    return tft.apply_vocabulary(keys, vocabulary, lookup_fn=lookup)
