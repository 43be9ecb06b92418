"""One figure of a benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["time", "step", "memory", "throughput", "quality"]
LARGER_IS_BETTER: frozenset[Kind] = frozenset({"throughput", "quality"})


@dataclass(frozen=True)
class Goal:
    """What a figure is to keep to: at most where less is better, at least where more is.

    Attributes:
        limit: the bound.
        of: whether it holds for the ratio or for the value.
    """

    limit: float
    of: Literal["ratio", "value"] = "ratio"


@dataclass(frozen=True)
class Measurement:
    """A figure, and what it is to be compared with.

    Attributes:
        name: of what was measured, sizes included: figures of the same name can be compared between runs.
        value: in `unit`.
        unit: "s", "ms", "MiB", "1/s", "AUC", "accuracy".
        kind: `step` is the time of one component of many; the kind decides what counts as noise.
        ratio: the value over that of `beside`; None of what others are compared with.
        beside: what was measured in the same run for comparison.
        goal: None where nothing is promised.
    """

    name: str
    value: float
    unit: str
    kind: Kind
    ratio: float | None = None
    beside: str = ""
    goal: Goal | None = None

    @property
    def larger_is_better(self) -> bool:
        return self.kind in LARGER_IS_BETTER

    @property
    def reaches_goal(self) -> bool | None:
        """None where there is no goal."""
        if self.goal is None:
            return None
        found = self.value if self.goal.of == "value" else self.ratio
        if found is None:
            return None
        return found >= self.goal.limit if self.larger_is_better else found <= self.goal.limit
