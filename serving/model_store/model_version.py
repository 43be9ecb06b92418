"""One published version of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelVersion:
    """One published version of a model; `reason` says why it was withdrawn, `provenance` is {} where there is none."""

    number: int
    path: str
    withdrawn: bool
    provenance: Mapping[str, Any]
    reason: str = ""
