"""An artifact of a run, whoever recorded it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class RunArtifact:
    """Where an artifact lies, and its properties (TFX's and custom ones in one mapping)."""

    uri: str
    properties: Mapping[str, Any] = field(default_factory=dict)

    def flag(self, name: str) -> bool:
        return bool(self.properties.get(name))

    def text(self, name: str) -> str:
        return str(self.properties.get(name, ""))
