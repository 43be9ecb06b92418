"""The terms of a text: sequences of words and of characters."""

from __future__ import annotations

import tensorflow as tf

# "!" and "?" say something; other punctuation separates.
SEPARATORS = r"[^\pL\pM\pN'!?]+"
LOOSE_APOSTROPHES = r"(^|[ !?])'+|'+([ !?]|$)"


@tf.function(autograph=False, reduce_retracing=True)
def words(texts: tf.Tensor) -> tf.RaggedTensor:
    """string [batch, n]: runs of letters, marks and digits, with the apostrophes inside of them; "!" and "?" alone.

    Args:
        texts: normalised, see normalized_text.
    """
    spaced = tf.strings.regex_replace(texts, SEPARATORS, " ")
    spaced = tf.strings.regex_replace(spaced, LOOSE_APOSTROPHES, r"\1 \2")
    return tf.strings.split(tf.strings.regex_replace(spaced, "([!?])", r" \1 "))


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
