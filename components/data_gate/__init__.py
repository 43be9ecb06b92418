"""Stop a run, in plain words, on data that contradicts its schema or cannot be learned from."""

__all__ = ["component", "leaks", "splits", "verdict"]
