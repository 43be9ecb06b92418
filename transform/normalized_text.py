"""Different ways to write the same text, made one."""

from __future__ import annotations

import tensorflow as tf

from transform.kept_values import kept_values
from transform.unicode_tables import PAGE, compositions, lower_case_compatibility_mapping

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
    mapping = lower_case_compatibility_mapping()
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
    return kept_values(code_points.with_flat_values(values), kept)
