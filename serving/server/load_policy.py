"""When base paths are looked at, and how often a load is tried."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LoadPolicy:
    """When base paths are looked at, and how often a load is tried; the defaults are TensorFlow Serving's."""

    poll_seconds: float = 1.0
    load_retries: int = 5
    load_retry_seconds: float = 60.0
