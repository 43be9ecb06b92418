"""Text normalization in the graph: one form for the different ways to write a text."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import tensorflow as tf

PAGE = 256


@dataclass(frozen=True)
class Mapping:
    """Code point -> the code points that replace it; in pages, of which most are alike.

    Attributes:
        pages: int32 [code points / PAGE], the row of `slots` that holds a page.
        slots: int32 [different pages, PAGE], the place in `starts` and `lengths`; 0 where a code point stays as it is.
        starts: int32 [n], where a replacement begins in `values`.
        lengths: int32 [n], how long it is.
        values: int32, the replacements one after the other.
    """

    pages: np.ndarray
    slots: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Compositions:
    """Pairs of code points that are one: int64 [n] each, `pairs` ascending, first << 32 | second."""

    pairs: np.ndarray
    composed: np.ndarray


def code_point_mapping(replacement_of: Callable[[str], str]) -> Mapping:
    """The mapping that replaces each character by what the function makes of it, which may be nothing."""
    slot_of: dict[str, int] = {}
    slots = np.zeros(sys.maxunicode + 1, np.int32)
    for code_point in range(sys.maxunicode + 1):
        character = chr(code_point)
        replacement = replacement_of(character)
        if replacement != character:
            slots[code_point] = slot_of.setdefault(replacement, len(slot_of) + 1)
    lengths = np.array([1, *map(len, slot_of)], np.int32)
    pages, page_numbers = np.unique(slots.reshape(-1, PAGE), axis=0, return_inverse=True)
    return Mapping(
        pages=page_numbers.reshape(-1).astype(np.int32),
        slots=pages,
        starts=(np.cumsum(lengths) - lengths).astype(np.int32),
        lengths=lengths,
        values=np.array([0, *(ord(character) for replacement in slot_of for character in replacement)], np.int32),
    )


@cache
def lower_case_compatibility_mapping() -> Mapping:
    """Each code point by itself in normal form KC and lower case."""
    return code_point_mapping(
        lambda character: unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", character).lower())
    )


@cache
def compositions() -> Compositions:
    """A base and a mark, and the one code point that normal form C makes of them; Hangul excepted."""
    found = {}
    for code_point in range(sys.maxunicode + 1):
        decomposition = unicodedata.decomposition(chr(code_point)).split()
        if len(decomposition) != 2 or decomposition[0].startswith("<"):
            continue
        first, second = (int(part, 16) for part in decomposition)
        if unicodedata.normalize("NFC", chr(first) + chr(second)) == chr(code_point):
            found[first << 32 | second] = code_point
    pairs = sorted(found)
    return Compositions(np.array(pairs, np.int64), np.array([found[pair] for pair in pairs], np.int64))


def select_values(values: tf.RaggedTensor, kept: tf.Tensor) -> tf.RaggedTensor:
    """Ragged [batch, n]: the values where `kept`, bool over all values, is true.

    The same as tf.ragged.boolean_mask, which is slow to trace: a second for the few that stand in Transform's graph.
    """
    kept_before = tf.concat([[0], tf.cumsum(tf.cast(kept, tf.int64))], axis=0)
    return tf.RaggedTensor.from_row_splits(
        tf.boolean_mask(values.flat_values, kept), tf.gather(kept_before, values.row_splits), validate=False
    )


# What authors of HTML write most; other entities become a space.
ENTITIES = {
    "&(quot|#34|#x22);": '"',
    "&(apos|#39|#x27|[lr]squo|#821[67]);": "'",
    "&(lt|#60);": "<",
    "&(gt|#62);": ">",
    "&#?[0-9A-Za-z]{2,31};": " ",
}
# A tag as people write them, and no comparison such as "a < b".
TAG = r"</?[A-Za-z][^<>]{0,500}>|<!--[^<>]{0,500}-->"
# Some letters carry three marks.
MARKS_ON_A_LETTER = 3


# A function of its own, as are those of text_terms: tf.Transform traces the preprocessing several times, these once.
@tf.function(autograph=False, reduce_retracing=True)
def normalized_text(texts: tf.Tensor, maximum_bytes: int) -> tf.Tensor:
    """string [batch]: without HTML, in Unicode's normal form KC, in lower case.

    Bytes that are no UTF-8 become U+FFFD. Differs from unicodedata.normalize("NFKC", text).lower() in three points:
    a mark is composed with its base only where it follows it at once (marks are not reordered), Hangul that is written
    in single jamo is not composed, and a capital sigma at the end of a word becomes a plain one.

    Args:
        texts: string [batch], any bytes.
        maximum_bytes: what follows after so many bytes of a text is dropped.
    """
    texts = without_html(readable_text(texts, maximum_bytes))
    code_points = lower_case_compatible(tf.strings.unicode_decode(texts, "UTF-8"))
    for _ in range(MARKS_ON_A_LETTER):
        code_points = composed(code_points)
    return tf.strings.unicode_encode(code_points, "UTF-8")


def readable_text(texts: tf.Tensor, maximum_bytes: int) -> tf.Tensor:
    """string [batch]: the first bytes of each text, with U+FFFD for those that are no UTF-8."""
    # Each replacement takes time in proportion to the text; a request must not take it by the megabyte.
    texts = tf.strings.substr(texts, 0, maximum_bytes)
    return tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")


def without_html(texts: tf.Tensor) -> tf.Tensor:
    """string [batch]: tags replaced by a space, the frequent entities by what they stand for, others by a space."""
    texts = tf.strings.regex_replace(texts, TAG, " ")
    # "&amp;lt;" is the text "&lt;", not "<": the mark keeps it out of the next replacements.
    texts = tf.strings.regex_replace(texts, "&(amp|#38);", "&\uffff")
    for entity, character in ENTITIES.items():
        texts = tf.strings.regex_replace(texts, entity, character)
    return tf.strings.regex_replace(texts, "&\uffff", "&")


def lower_case_compatible(code_points: tf.RaggedTensor) -> tf.RaggedTensor:
    """Each code point by itself in normal form KC and lower case; int32 [batch, n], n may change."""
    return replaced_code_points(code_points, lower_case_compatibility_mapping())


def replaced_code_points(code_points: tf.RaggedTensor, mapping: Mapping) -> tf.RaggedTensor:
    """Each code point replaced by what the mapping has for it; int32 [batch, n], n may change."""
    flat = code_points.flat_values
    page = tf.gather(tf.constant(mapping.pages), flat // PAGE)
    slot = tf.gather(tf.constant(mapping.slots.reshape(-1)), page * PAGE + flat % PAGE)
    length = tf.gather(tf.constant(mapping.lengths), slot)
    end = tf.cumsum(length)
    # Each code point as often as its replacement is long, then each copy replaced by another part of it.
    source = tf.repeat(tf.range(tf.size(flat)), length)
    part = tf.range(tf.size(source)) - tf.gather(end - length, source)
    slot = tf.gather(slot, source)
    replacement = tf.gather(tf.constant(mapping.values), tf.gather(tf.constant(mapping.starts), slot) + part)
    values = tf.where(slot > 0, replacement, tf.gather(flat, source))
    row_splits = tf.gather(tf.concat([[0], end], axis=0), code_points.row_splits)
    return tf.RaggedTensor.from_row_splits(values, tf.cast(row_splits, tf.int64), validate=False)


def composed(code_points: tf.RaggedTensor) -> tf.RaggedTensor:
    """A base and the mark that follows it as one code point, where Unicode has one; int32 [batch, n]."""
    table = compositions()
    flat = code_points.flat_values
    following = tf.concat([flat[1:], [0]], axis=0)
    # The last of a text has nothing to be composed with.
    row_of = code_points.value_rowids()
    same_row = tf.concat([tf.equal(row_of[1:], row_of[:-1]), [False]], axis=0)[: tf.size(flat)]
    pair = tf.bitwise.left_shift(tf.cast(flat, tf.int64), tf.constant(32, tf.int64)) + tf.cast(following, tf.int64)
    place = tf.minimum(tf.searchsorted(tf.constant(table.pairs), pair), len(table.pairs) - 1)
    composes = tf.equal(tf.gather(tf.constant(table.pairs), place), pair) & same_row
    composes &= tf.concat([[True], ~composes[:-1]], axis=0)[: tf.size(flat)]
    values = tf.where(composes, tf.cast(tf.gather(tf.constant(table.composed), place), tf.int32), flat)
    # A mark that went into its base is gone.
    kept = tf.concat([[True], ~composes[:-1]], axis=0)[: tf.size(flat)]
    return select_values(code_points.with_flat_values(values), kept)
