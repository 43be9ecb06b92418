"""Baseline: the model that is served now, for the candidate to be compared with."""

__all__ = ["component"]
