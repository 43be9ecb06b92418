"""How much a column alone tells of the label: areas under the ROC curve of one class against the rest.

Each function takes `codes`, int64 [rows], the place of a row's value among the different ones, -1 where there is none,
and `positives`, float64 [classes, rows], 1 where a row is of the class. Each answers the mean over the half of the
classes that it tells least of, since some may well stand apart by nature: 0.5 tells
nothing, 1.0 the class of every row. What stays below WORTH_KNOWING is a bound: not all classes were looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.data_gate.splits import coded, compact

FOLDS = 5
# Chance alone puts ten against ten in order once in 90,000 columns.
MINIMUM_OF_CLASS = 10
MAXIMUM_CLASSES = 20
WORTH_KNOWING = 0.9


def class_indicators(labels: pa.Array) -> np.ndarray:
    """Which rows are of each class that is frequent enough to say something of; of two classes one is enough.

    Args:
        labels: of every row, none null.

    Returns:
        float64 [classes, rows]: `positives` of the other functions.
    """
    codes = coded(labels).codes
    counts = np.bincount(codes)
    enough = (counts >= MINIMUM_OF_CLASS) & (len(codes) - counts >= MINIMUM_OF_CLASS)
    classes = [code for code in np.argsort(-counts, kind="stable") if enough[code]][:MAXIMUM_CLASSES]
    if len(counts) == 2:
        classes = classes[-1:]
    return np.array([codes == code for code in classes], np.float64).reshape(len(classes), len(codes))


def missing_auc(codes: np.ndarray, positives: np.ndarray) -> float:
    """What it tells whether there is a value."""
    missing = (codes < 0).astype(np.int64)
    return _of_worst_half((_either_way(*_counts(missing, row, 2)) for row in positives), len(positives))


def order_auc(codes: np.ndarray, positives: np.ndarray) -> float:
    """What the order of the values tells, in the better direction; rows without a value stand at the better end."""
    places, count = compact(codes)
    lowest, highest = places + 1, np.where(places < 0, count, places)
    orders = [lowest] if places.min(initial=0) >= 0 else [lowest, highest]
    return max(
        _of_worst_half((_either_way(*_counts(order, row, count + 1)) for row in positives), len(positives))
        for order in orders
    )


def neighbour_auc(codes: np.ndarray, positives: np.ndarray) -> float:
    """What the nearest other values tell: the share of a class among them, rows of the same value apart.

    Finds what the order alone does not: classes in blocks, or one between two others.
    """
    places, count = compact(codes)
    places = np.where(places < 0, count, places)
    reach = int(np.clip(count // 100, 5, 50))
    start, stop = np.maximum(np.arange(count) - reach, 0), np.minimum(np.arange(count) + reach + 1, count)

    def area(row: np.ndarray) -> float:
        positive, negative = _counts(places, row, count + 1)
        of_class, of_rest = (_sums(values[:count], start, stop) for values in (positive, negative))
        # Rows without a value have no neighbours; all of them together get one score.
        of_class, of_rest = np.append(of_class, positive[count:]), np.append(of_rest, negative[count:])
        return _area_of_scores((of_class + row.mean()) / (of_class + of_rest + 1), positive, negative)

    return _of_worst_half(map(area, positives), len(positives))


def _sums(values: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Of values[start:stop], each its middle apart."""
    total = np.append(0, np.cumsum(values))
    return total[stop] - total[start] - values


def out_of_fold_auc(codes: np.ndarray, positives: np.ndarray, folds: np.ndarray) -> float:
    """What the share of a class among rows of the same value tells, measured on the other folds.

    Values that occur once are one category, so that an identifier tells nothing.

    Args:
        folds: int64 [rows], 0 to FOLDS - 1.
    """
    places, count = compact(codes)
    once = np.append(np.bincount(places[places >= 0], minlength=count) == 1, False)
    categories, number = compact(np.where(once[places], count, places))
    cells = np.where(categories < 0, number, categories) * FOLDS + folds

    def area(row: np.ndarray) -> float:
        positive, negative = _counts(cells, row, (number + 1) * FOLDS)
        of_class, of_rest = (_of_other_folds(values) for values in (positive, negative))
        return _area_of_scores((of_class + row.mean()) / (of_class + of_rest + 1), positive, negative)

    return _of_worst_half(map(area, positives), len(positives))


def _of_other_folds(cells: np.ndarray) -> np.ndarray:
    by_fold = cells.reshape(-1, FOLDS)
    return (by_fold.sum(axis=1, keepdims=True) - by_fold).ravel()


def _counts(groups: np.ndarray, positive: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """How many rows of each group are of the class, and how many are not."""
    of_class = np.bincount(groups, weights=positive, minlength=number)
    return of_class, np.bincount(groups, minlength=number) - of_class


def _area_of_scores(scores: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    occupied = np.flatnonzero(positive + negative)
    order = occupied[np.argsort(scores[occupied])]
    starts = np.flatnonzero(np.append(True, np.diff(scores[order]) > 1e-12))
    return _area(np.add.reduceat(positive[order], starts), np.add.reduceat(negative[order], starts))


def _area(positive: np.ndarray, negative: np.ndarray) -> float:
    """Under the ROC curve, of groups by ascending scores; rows of one group are ties (Mann and Whitney, 1947)."""
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / (positive.sum() * negative.sum()))


def _either_way(positive: np.ndarray, negative: np.ndarray) -> float:
    area = _area(positive, negative)
    return max(area, 1 - area)


def _of_worst_half(areas: Iterable[float], classes: int) -> float:
    half, known, most = max(1, classes // 2), [], 1.0
    for area in areas:
        known.append(area)
        worst = sorted(known)[:half]
        most = (sum(worst) + half - len(worst)) / half  # if the other classes were told entirely
        if most < WORTH_KNOWING:
            break
    return most


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
