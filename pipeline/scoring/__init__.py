"""Batch scoring: files through a published model; and how good its answers were, once labels come."""

__all__ = ["inputs", "pipeline", "truth"]
