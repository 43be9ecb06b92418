"""What became of a benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.harness.measurement import Measurement


@dataclass(frozen=True)
class Outcome:
    """What a benchmark measured, or why it did not.

    Attributes:
        name: of the benchmark.
        title: what it is about.
        state: `skipped` where this machine has not what it needs, or the short form leaves it out.
        seconds: how long it took.
        reason: why it was skipped or failed.
        measurements: its figures.
    """

    name: str
    title: str
    state: Literal["measured", "skipped", "failed"]
    seconds: float = 0.0
    reason: str = ""
    measurements: tuple[Measurement, ...] = ()
