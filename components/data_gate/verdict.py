"""The verdict of DataGate, and the files that hold it and what it judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

VERDICT_FILE = "verdict.json"


ANOMALIES_FILE = "SchemaDiff.pb"  # ExampleValidator's name for it


@dataclass(frozen=True)
class Verdict:
    """What stops the run, what does not, and what there is to learn from.

    Attributes:
        unusable: reasons for which no model could be trained.
        anomalies: contradictions of the schema that stop the run.
        warnings: what does not stop it.
        examples: split -> number of examples.
        classes: split -> label value -> number of examples; {} where the statistics do not say.
    """

    unusable: tuple[str, ...]
    anomalies: tuple[str, ...]
    warnings: tuple[str, ...]
    examples: Mapping[str, int]
    classes: Mapping[str, Mapping[str, int]]

    @property
    def reasons(self) -> tuple[str, ...]:
        return self.unusable + self.anomalies

    @property
    def stopped(self) -> bool:
        return bool(self.reasons)

    def as_json(self) -> dict[str, Any]:
        """The verdict as it is written to the artifact."""
        return {
            "stopped": self.stopped,
            "reasons": self.reasons,
            "warnings": self.warnings,
            "examples": self.examples,
            "classes": self.classes,
        }
