"""Stops a run on a span that differs from the one before it."""

__all__ = ["component"]
