"""The signatures each task exports."""

__all__ = ["common", "explain", "forests", "image", "tabular", "text"]
