"""Splits: which rows are learned from, and which are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.errors import BrokenInput
from components.table_example_gen.options import EVAL, TEST, TRAIN

_BUCKETS = 100


def places_of_buckets(buckets: np.ndarray, eval_share: float, test_share: float) -> np.ndarray:
    """The split of each bucket, int64 [n]: 0 train, 1 eval, the highest ones, or 2 test, those below."""
    held_out = max(1, round(eval_share * _BUCKETS))
    test = max(1, round(test_share * _BUCKETS)) if test_share else 0
    return np.where(buckets >= _BUCKETS - held_out, 1, np.where(buckets >= _BUCKETS - held_out - test, 2, 0))


# 2 ** 192, 2 ** 128, 2 ** 64 and 1, each modulo the number of buckets.
_PLACE_VALUES = np.array([pow(2, 64 * place, _BUCKETS) for place in range(3, -1, -1)], np.uint64)


def hash_buckets(digests: np.ndarray) -> np.ndarray:
    """SHA-256 as one large number modulo 100, int64 [n], as TFX's ExampleGens split.

    Args:
        digests: uint8 [n, 32].
    """
    words = np.ascontiguousarray(digests).view(">u8").astype(np.uint64)
    sums = (words % np.uint64(_BUCKETS) * _PLACE_VALUES).sum(axis=1)
    return np.asarray(sums % np.uint64(_BUCKETS)).astype(np.int64)


def key_buckets(keys: pa.Array) -> np.ndarray:
    """The bucket of each key by its hash, int64 [n]; -1 for a missing one."""
    encoded = pc.cast(keys, pa.string()).dictionary_encode()
    digests = [hashlib.sha256(key.encode()).digest() for key in encoded.dictionary.to_pylist()]
    buckets = np.append(hash_buckets(np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)), -1)
    return np.asarray(buckets[pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)])


# What people call the splits in a column.
_NAMES = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("eval", "evaluation", "valid", "validation", "val", "dev"), EVAL),
    **dict.fromkeys(("test", "testing", "holdout"), TEST),
}


def named_splits(values: pa.Array, column: str, splits: Sequence[str]) -> np.ndarray:
    """The place in `splits` of what each row says, int64 [n].

    Raises:
        BrokenInput: a row says nothing, or something else.
    """
    encoded = pc.cast(values, pa.string()).dictionary_encode(null_encoding="encode")
    places = []
    for value in encoded.dictionary.to_pylist():
        name = _NAMES.get((value or "").strip().lower())
        if name not in splits:
            raise BrokenInput(
                f"data.split.column is {column!r}, which says {value!r} for a row; expected {', '.join(splits)}"
            )
        places.append(splits.index(name))
    return np.asarray(places)[encoded.indices.to_numpy(zero_copy_only=False)]


# Times: ISO 8601 sorts as text.
_ISO = r"^\s*\d{4}-\d{2}-\d{2}([ T].*)?$"
_MOST_POINTS = 50_000


@dataclass(frozen=True)
class Quantiles:
    """Different values of a distribution, with the number of rows that have each.

    Where there are more than _MOST_POINTS, those whose hashes are the smallest: the same ones however the rows are
    divided into parts, since what is among the smallest of all is among the smallest of each part that has it.

    Attributes:
        counts: value -> how many rows have it, and its hash.
    """

    counts: Mapping[float | str, tuple[int, int]] = field(default_factory=dict)

    def merged(self, other: Quantiles) -> Quantiles:
        """Of the rows of both."""
        counts = dict(self.counts)
        for value, (count, key) in other.counts.items():
            counts[value] = (counts.get(value, (0, key))[0] + count, key)
        return Quantiles(_smallest(counts))

    def threshold(self, share: float) -> float | str | None:
        """The smallest value of the largest ones that are such a share of the rows; None where there are none."""
        if not self.counts:
            return None
        values = sorted(self.counts)
        below = np.cumsum([self.counts[value][0] for value in values])
        found = int(np.searchsorted(below, (1 - share) * below[-1], side="right"))
        return values[min(found, len(values) - 1)]


def _smallest(counts: dict[float | str, tuple[int, int]]) -> dict[float | str, tuple[int, int]]:
    """Those with the smallest hashes."""
    if len(counts) <= _MOST_POINTS:
        return counts
    last = sorted(key for _, key in counts.values())[_MOST_POINTS - 1]
    return {value: found for value, found in counts.items() if found[1] <= last}


def time_quantiles(values: pa.Array, column: str) -> Quantiles:
    """Of the times of rows.

    Raises:
        BrokenInput: a value is neither a number nor a time that sorts as text.
    """
    present = _times(values, column).drop_null()
    different = present.value_counts()
    points, counts = different.field("values").to_pylist(), different.field("counts").to_pylist()
    hashes = (int.from_bytes(hashlib.blake2b(str(point).encode(), digest_size=8).digest(), "big") for point in points)
    return Quantiles(_smallest(dict(zip(points, zip(counts, hashes, strict=True), strict=True))))


def times_from(values: pa.Array, column: str, threshold: float | str | None) -> np.ndarray:
    """Which rows are of that time or later, bool [n]; those without a time are not."""
    if threshold is None:
        return np.zeros(len(values), bool)
    later = pc.greater_equal(_times(values, column), threshold)
    return np.asarray(pc.fill_null(later, False).to_numpy(zero_copy_only=False))


def _times(values: pa.Array, column: str) -> pa.Array:
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        return pc.add(pc.cast(values, pa.float64()), 0.0)  # of the two zeros one
    texts = pc.utf8_trim_whitespace(pc.cast(values, pa.string()))
    wrong = pc.filter(texts, pc.invert(pc.match_substring_regex(texts, _ISO)))
    if len(wrong.drop_null()):
        raise BrokenInput(
            f"data.split.time is {column!r}, which holds {wrong.drop_null()[0].as_py()!r}; expected numbers, or times "
            "as 2026-01-31 or 2026-01-31T12:00"
        )
    return pc.replace_substring(texts, "T", " ")


# Texts that differ in nothing but case, punctuation and blanks are near-duplicates.
_NO_LETTER = r"[^\pL\pN]+"


def near_duplicate_keys(texts: pa.Array) -> pa.Array:
    """What near-duplicates have in common, string [n]; "" for a text without letters and digits, null for none."""
    letters = pc.replace_substring_regex(pc.utf8_lower(pc.cast(texts, pa.string())), _NO_LETTER, " ")
    return pc.utf8_trim_whitespace(letters)


def text_hashes(texts: pa.Array) -> np.ndarray:
    """64 bits of BLAKE2b of each text, uint64 [n]; 0 for none."""
    digests = [
        hashlib.blake2b(text.encode(), digest_size=8).digest() if text else bytes(8) for text in texts.to_pylist()
    ]
    return np.frombuffer(b"".join(digests), np.uint64)


_FEWEST_OF_A_LABEL = 20


def sample_sizes(counts: Mapping[str, int], most: int) -> dict[str, int]:
    """How many examples of each label a sample has: about its share, but some of each label that there is.

    Args:
        counts: label -> how many examples there are.
        most: the size of the sample; it is larger only where there are more labels than that.
    """
    floor = max(1, min(_FEWEST_OF_A_LABEL, most // max(1, len(counts))))
    sizes = {label: min(count, floor) for label, count in counts.items()}
    left, others = most - sum(sizes.values()), sum(counts.values()) - sum(sizes.values())
    if left >= others:
        return dict(counts)
    return {label: size + max(0, left) * (counts[label] - size) // others for label, size in sizes.items()}
