"""Preprocessing of each task: preprocessing_fn and its options."""

__all__ = ["columns", "errors", "image", "image_decoding", "labels", "options", "tabular", "text", "wordpiece"]
