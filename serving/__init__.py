"""Serving: the model base path, the signatures, the embedded server and its clients. No TFX in here."""

__all__ = [
    "answers",
    "client",
    "loading",
    "missing_values",
    "model_store",
    "reference_predictions",
    "server",
    "session_model",
    "signatures",
]
