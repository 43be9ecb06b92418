"""Rows that stand in two splits: counted, and told from rows that are equal by nature.

Where columns have few values, rows come to be equal without anybody copying them. How many is read off the data: of the
rows that are equal in one half of their columns, some are equal in the other half too, as that one is frequent or rare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MINIMUM_COPIES = 3
# So little that an accuracy is no more than that too good.
MINIMUM_SHARE = 0.01
# Columns depend on each other, so more rows are equal by nature than independent halves say: four times as many in the
# Census Income data without its weights, nine times where a town goes with its state.
DEPENDENCE = 30
# A row that more than so many others explain may well be equal to one of them by chance.
_EXPLAINED = 0.01
_HALVES = 6
_SEED = 7


@dataclass(frozen=True)
class Copies:
    """Rows of one split that stand in another one too.

    Attributes:
        count: how many rows there are of which every column is equal in a row of the other split.
        share: of the rows of the split.
        by_nature: whether the data explain them without anybody having copied rows.
    """

    count: int
    share: float
    by_nature: bool


def row_keys(columns: Sequence[np.ndarray], salts: np.ndarray) -> np.ndarray:
    """A number for each row, the same for rows with the same values.

    Args:
        columns: codes, int64 [rows] each, one at least.
        salts: uint64 [columns], another for each column.
    """
    keys = np.zeros(len(columns[0]), np.uint64)
    for codes, salt in zip(columns, salts, strict=True):
        keys += _mixed(codes.astype(np.uint64) + salt)
    return keys


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014): close numbers come to lie far apart."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def salts_of(columns: int) -> np.ndarray:
    """uint64 [columns], the same each time."""
    return np.random.default_rng(_SEED).integers(0, 2**63, columns, dtype=np.uint64)


def find_copies(columns: Sequence[np.ndarray], train_rows: int) -> Copies:
    """Rows behind the first `train_rows` that are equal to one of these.

    Args:
        columns: codes of both splits, int64 [rows] each, the train split first. A single one is not
            enough to know a row again.
        train_rows: how many rows are of the train split.
    """
    if len(columns) < 2:
        return Copies(0, 0.0, True)
    keys = row_keys(columns, salts_of(len(columns)))
    train, others = keys[:train_rows], keys[train_rows:]
    if not len(train) or not len(others):
        return Copies(0, 0.0, True)
    equal = _matches(others, train)
    count, share = _share(equal)
    # Where most rows are repeated in the train split alone, it is the data that repeat themselves.
    if count < MINIMUM_COPIES or share < MINIMUM_SHARE or len(np.unique(train)) < len(train) / 2:
        return Copies(count, share, True)
    expected = _expected_matches(columns, train_rows, equal)
    surprising = expected < _EXPLAINED
    by_nature = (equal[surprising] > 0).sum() <= DEPENDENCE * expected[surprising].sum()
    return Copies(count, share, bool(by_nature))


def find_copied_texts(codes: np.ndarray, long_enough: np.ndarray, train_rows: int) -> Copies:
    """Texts behind the first `train_rows` that stand among these word for word.

    Args:
        codes: of both splits, int64 [rows], the train split first, -1 where there is no text.
        long_enough: bool [rows], whether nobody would write the same again by chance.
        train_rows: how many rows are of the train split.
    """
    train, others = codes[:train_rows], codes[train_rows:]
    if not len(train) or not len(others):
        return Copies(0, 0.0, True)
    count, share = _share(np.where(long_enough[train_rows:] & (others >= 0), _matches(others, train), 0))
    return Copies(count, share, count < MINIMUM_COPIES or share < MINIMUM_SHARE)


def _share(matches: np.ndarray) -> tuple[int, float]:
    count = int((matches > 0).sum())
    return count, count / len(matches)


def _expected_matches(columns: Sequence[np.ndarray], train_rows: int, equal: np.ndarray) -> np.ndarray:
    """How many rows of the train split each other row would be equal to if halves of the columns were independent.

    The largest expectation of several random halves; rows that are equal in both halves do not count for it.
    """
    expected = np.zeros(len(equal))
    salts, random = salts_of(len(columns)), np.random.default_rng(_SEED)
    for _ in range(_HALVES):
        half = np.array_split(random.permutation(len(columns)), 2)
        matches = []
        for part in half:
            keys = row_keys([columns[place] for place in part], salts[part])
            matches.append(_matches(keys[train_rows:], keys[:train_rows]) - equal)
        expected = np.maximum(expected, matches[0] * matches[1] / train_rows)
    return expected


def _matches(keys: np.ndarray, among: np.ndarray) -> np.ndarray:
    """How often each key stands among others."""
    different, counts = np.unique(among, return_counts=True)
    places = np.minimum(np.searchsorted(different, keys), len(different) - 1)
    return np.where(different[places] == keys, counts[places], 0)
