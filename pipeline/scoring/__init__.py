"""Batch scoring: files through a published model."""
