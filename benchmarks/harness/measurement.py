"""Measurements: a benchmark's figures, with units, goals and bounds, and as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.table import Table

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


HEADINGS = ("", "measured", "ratio", "to", "goal")


def table_cells(measurement: Measurement) -> tuple[str, str, str, str, str]:
    """What stands below HEADINGS."""
    ratio = "" if measurement.ratio is None else f"{measurement.ratio:.2f}"
    if measurement.kind == "quality" and measurement.ratio is not None:
        ratio = f"{measurement.ratio:.3f}"
    return measurement.name, _value(measurement), ratio, measurement.beside, _goal(measurement)


def _value(measurement: Measurement) -> str:
    if measurement.kind == "quality":
        return f"{measurement.value:.4f} {measurement.unit}"
    decimals = 0 if measurement.value >= 100 else 1 if measurement.value >= 10 else 2
    return f"{measurement.value:,.{decimals}f} {measurement.unit}"


def _goal(measurement: Measurement) -> str:
    if measurement.goal is None:
        return ""
    wanted = f"{_bound(measurement)} {_limit(measurement.goal, measurement.unit)}"
    return wanted if measurement.reaches_goal else f"{wanted}: **missed**"


def _bound(measurement: Measurement) -> str:
    return "at least" if measurement.larger_is_better else "at most"


def _limit(goal: Goal, unit: str) -> str:
    return f"{goal.limit:,g} {unit}" if goal.of == "value" else f"{goal.limit:g}"


def measurements_table(title: str, measurements: Sequence[Measurement]) -> Table:
    """A table for rich to print."""
    table = Table(*HEADINGS, title=title)
    for measurement in measurements:
        table.add_row(*table_cells(measurement))
    return table
