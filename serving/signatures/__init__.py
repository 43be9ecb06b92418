"""The signatures each task exports."""

__all__ = ["common", "forests", "image", "tabular", "text"]
