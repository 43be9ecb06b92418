"""TextExampleGen: reads texts and their labels into examples."""

__all__ = ["component"]
