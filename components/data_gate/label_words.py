"""Texts that hold the name of their own label as a word."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.data_gate.association import MAXIMUM_CLASSES, MINIMUM_OF_CLASS
from components.data_gate.split_rows import coded

# Half of (the share of a class's own texts with its name + the share of the other texts without it).
NAMES_LABEL = 0.95
# Scripts from here on put no blank between words: CJK radicals and what follows in Unicode.
_WITHOUT_BLANKS = 0x2E80
_LEAST_WORDS = 3


@dataclass(frozen=True)
class Mention:
    """A label's name in texts.

    Attributes:
        word: the name.
        own: the share of the texts with this label that hold it.
        others: the same of the other texts.
    """

    word: str
    own: float
    others: float

    @property
    def area(self) -> float:
        """Under the ROC curve of whether a text holds the name."""
        return (self.own + 1 - self.others) / 2


def label_names(labels: pa.Array, names: Mapping[str, str]) -> pa.Array:
    """Labels by what they are called, binary [rows]; several values may have one name.

    Args:
        labels: int64, float64 or binary [rows], none null.
        names: raw value of the label -> its name; a value that is not there keeps its own text.
    """
    classes = coded(labels)
    texts = [_as_text(value) for value in classes.values.to_pylist()]
    return pa.array([names.get(text, text).encode() for text in texts], pa.large_binary()).take(pa.array(classes.codes))


def named_label(texts: pa.Array, labels: pa.Array) -> Mention | None:
    """The label that stands most clearly in its own texts, where the texts name their labels; otherwise None.

    Args:
        texts: binary [rows], none null.
        labels: binary [rows], none null.
    """
    classes = coded(labels)
    counts = np.bincount(classes.codes)
    frequent = [place for place in np.argsort(-counts, kind="stable") if counts[place] >= MINIMUM_OF_CLASS]
    if len(frequent) < 2:
        return None
    decoded, words = decoded_texts(texts), decoded_texts(classes.values).to_pylist()
    mentions = [
        _mention(words[place], decoded, classes.codes == place) for place in map(int, frequent[:MAXIMUM_CLASSES])
    ]
    # A text with none of the names is of the class that is left over: that one need not be named.
    best = sorted(mentions, key=lambda mention: mention.area, reverse=True)[:-1]
    return best[0] if np.mean([mention.area for mention in best]) >= NAMES_LABEL else None


def _mention(word: str, texts: pa.Array, has_label: np.ndarray) -> Mention:
    found = pc.match_substring_regex(texts, word_pattern(word)).to_numpy(zero_copy_only=False)
    return Mention(word, float(found[has_label].mean()), float(found[~has_label].mean()))


def word_pattern(label: str) -> str:
    """A regular expression of RE2 for a label as whole words: not_spam also finds "Not spam", and not "not spammed"."""
    parts = [part for part in re.split(r"[\W_]+", label) if part]
    if not parts:
        return re.escape(label)
    words = r"[^\pL\pN]+".join(parts)
    if any(ord(character) >= _WITHOUT_BLANKS for character in label):
        return words
    return rf"(?i)(?:^|[^\pL\pN]){words}(?:[^\pL\pN]|$)"


def _as_text(label: object) -> str:
    if isinstance(label, bytes):
        return label.decode("utf-8", "replace")
    return f"{label:g}" if isinstance(label, float) else str(label)


def decoded_texts(values: pa.Array) -> pa.Array:
    """Binary as text, with a mark in place of what is no UTF-8."""
    try:
        return values.cast(pa.large_string())
    except pa.ArrowInvalid:
        return pa.array([value and value.decode("utf-8", "replace") for value in values.to_pylist()], pa.large_string())


def holds_sentences(values: pa.Array) -> bool:
    """Whether texts are sentences rather than names or codes, by a thousand of them."""
    some = decoded_texts(values.take(pa.array(np.arange(0, len(values), max(1, len(values) // 1000))))).to_pylist()
    return bool(some) and sum(len(text.split()) for text in some) >= _LEAST_WORDS * len(some)
