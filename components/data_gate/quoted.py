"""Values in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SHOWN = 8


def quoted(values: Sequence[str]) -> str:
    """`'a', 'b'`; of many the first eight, and how many more there are."""
    return _shortened([repr(value) for value in values])


def quoted_counts(counts: Mapping[str, int]) -> str:
    """`'a' (3 rows), 'b' (1 row)`."""
    return _shortened([f"{value!r} ({rows(count)})" for value, count in counts.items()])


def rows(count: int) -> str:
    """`1 row`, `2 rows`."""
    return "1 row" if count == 1 else f"{count} rows"


def _shortened(items: Sequence[str]) -> str:
    shown = ", ".join(items[:SHOWN])
    return f"{shown} and {len(items) - SHOWN} more" if len(items) > SHOWN else shown
