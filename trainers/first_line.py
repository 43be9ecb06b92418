"""The errors of libraries, in a sentence."""

from __future__ import annotations


def first_line(error: Exception) -> str:
    """What an error says, without what it lists on further lines and without the full stop."""
    return str(error).strip().split("\n", 1)[0].rstrip(".")
