"""Metrics of the model that is served, against thresholds and against the model served now."""

__all__ = ["classification", "component", "eval_config", "options"]
