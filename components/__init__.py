"""The components that TFX does not have."""

__all__ = [
    "baseline",
    "compatibility_check",
    "data_gate",
    "dependencies",
    "drift",
    "drift_gate",
    "errors",
    "evaluator",
    "image_example_gen",
    "replay_gate",
    "request_logs",
    "run_report",
    "serving_check",
    "serving_pusher",
    "statistics_gen",
    "table_example_gen",
    "table_file",
    "tuner",
]
