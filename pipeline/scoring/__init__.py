"""Batch scoring: files through a published model."""

__all__ = ["inputs", "pipeline"]
