"""Metrics of the model that is served, against thresholds and against the model served now."""

__all__ = ["component", "eval_config", "options"]
