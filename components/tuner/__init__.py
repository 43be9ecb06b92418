"""Tuner: the search for the options of the Trainer."""

__all__ = ["component"]
