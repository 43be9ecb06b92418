"""What a serving check found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

REPORT_FILE = "report.json"


@dataclass(frozen=True)
class Report:
    """The verdict and the figures behind it.

    Attributes:
        reasons: why the model is not blessed; empty when it is.
        examples: how many examples the split holds.
        checked: how many of them were sent.
        left_out: how many were chosen and have no reference prediction: training left them out as unusable.
        tolerance: how far a probability might be from its reference.
        warmup_requests: how many requests the model was given to warm up with.
        loaders: what the model was loaded with.
        load_seconds: how long the session took to load it; None where it did not.
        latency_ms: signature -> batch size -> {"p50", "p99", "runs"}, in the session, without transport.
    """

    reasons: Sequence[str]
    examples: int
    checked: int
    left_out: int
    tolerance: float
    warmup_requests: int
    loaders: Sequence[str]
    load_seconds: float | None
    latency_ms: Mapping[str, Mapping[str, Mapping[str, float]]]

    @property
    def blessed(self) -> bool:
        return not self.reasons

    def as_json(self) -> dict[str, Any]:
        """The report as it is written to the artifact."""
        return {"blessed": self.blessed, **asdict(self)}
