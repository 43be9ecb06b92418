"""The signatures each task exports."""

__all__ = ["common", "image", "tabular", "text"]
