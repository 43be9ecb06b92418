"""Errors that stop a training."""

from __future__ import annotations


class TrainingError(Exception):
    """The options name something that cannot be had or does not fit; the message says what to do."""


def first_line(error: Exception) -> str:
    """What an error says, without what it lists on further lines and without the full stop."""
    return str(error).strip().split("\n", 1)[0].rstrip(".")
