"""The verdict of a gate between raw data and a published model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GateVerdict = Literal["passed", "failed", "not reached", "not needed"]


@dataclass(frozen=True)
class Check:
    """A demand of a gate, what was found, and whether it holds."""

    demand: str
    found: str
    holds: bool


@dataclass(frozen=True)
class Gate:
    """A gate's verdict.

    Attributes:
        name: of the component.
        question: what it asks.
        verdict: its answer; `not needed` where the pipeline left the gate out, since there was nothing to judge.
        reasons: why, in sentences.
        checks: the demands behind it.
    """

    name: str
    question: str
    verdict: GateVerdict
    reasons: tuple[str, ...]
    checks: tuple[Check, ...] = ()
