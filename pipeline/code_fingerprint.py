"""Which code a step runs: TFX's cache knows a function only by its name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRANSFORM_SOURCES = (
    "transform",
    "serving/missing_value.py",
    "serving/is_missing.py",
    "serving/labels.py",
    "serving/export.py",
    "serving/map_each.py",
    "serving/signatures/image.py",
)
TRAINER_SOURCES = (
    *TRANSFORM_SOURCES,
    "trainers",
    "serving/signatures",
    "serving/image_files.py",
    "serving/reference_predictions.py",
)


def code_fingerprint(sources: Iterable[str], *settings: str) -> str:
    """SHA-256 over Python sources and the settings they run with.

    Args:
        sources: files and folders, relative to the project.
        settings: what else decides about the outcome, such as options as JSON.
    """
    digest = hashlib.sha256()
    for source in sources:
        path = ROOT / source
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes() + b"\0")
    for setting in settings:
        digest.update(setting.encode() + b"\0")
    return digest.hexdigest()
