"""What the splits of compared spans are called."""

from __future__ import annotations

from collections.abc import Iterable

PREVIOUS = "previous"


def compared_splits(splits: Iterable[str]) -> list[str]:
    """The splits that are held against PREVIOUS, in their order."""
    return [split for split in splits if split != PREVIOUS]
