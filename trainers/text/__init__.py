"""The trainer of texts: run_fn and tuner_fn, which TFX's Trainer and Tuner call by their dotted names."""

from __future__ import annotations

from typing import Any

__all__ = ["options", "run_fn", "tuner_fn", "wrap"]


def __getattr__(name: str) -> Any:
    """Import the training when it is asked for: a config reads the options of this package without TensorFlow."""
    if name not in ("run_fn", "tuner_fn"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from trainers.text import train

    return getattr(train, name)
