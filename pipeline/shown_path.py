"""Paths in what people read."""

from __future__ import annotations

import os


def shown_path(path: str) -> str:
    """A path from here, where that is shorter than the whole path; "" stays so."""
    return path if not path or "://" in path else min(os.path.relpath(path), path, key=len)
