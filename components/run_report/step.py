"""A step of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

StepState = Literal["done", "unchanged", "failed", "not reached"]


@dataclass(frozen=True)
class Step:
    """What became of a component of the pipeline.

    Attributes:
        name: its id in the pipeline.
        state: `unchanged` where the outputs of an earlier run were used.
        seconds: how long it took; None where it did not run to its end.
        upstream: the steps whose outputs it takes.
    """

    name: str
    state: StepState
    seconds: float | None
    upstream: tuple[str, ...] = ()
