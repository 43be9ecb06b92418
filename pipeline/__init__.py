"""The pipeline: its config, its graph, its command line."""

__all__ = ["commands"]
