"""A measurement as the cells of a table."""

from __future__ import annotations

from benchmarks.harness.measurement import Goal, Measurement

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
