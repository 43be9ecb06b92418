"""Training of each task: run_fn and its options."""

__all__ = ["artifacts", "errors", "fitting", "image", "options", "roc", "tabular", "text", "tuning"]
