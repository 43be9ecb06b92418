"""What is asked of a served model, held against what it learned from."""

__all__ = ["compare"]
