"""Errors that stop preprocessing."""

from __future__ import annotations


class PreprocessingError(ValueError):
    """The options and the columns do not fit; the message names the column, and what to change."""
