"""Tables of Unicode, made from Python's unicodedata when a graph is built."""

from __future__ import annotations

import sys
import unicodedata
from dataclasses import dataclass
from functools import cache

import numpy as np

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


@cache
def lower_case_compatibility_mapping() -> Mapping:
    """Each code point by itself in normal form KC and lower case."""
    slot_of: dict[str, int] = {}
    slots = np.zeros(sys.maxunicode + 1, np.int32)
    for code_point in range(sys.maxunicode + 1):
        character = chr(code_point)
        replacement = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", character).lower())
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
