"""Time and memory by the number of items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.harness.measurement import Goal, Measurement

ALL_STEPS = "all steps"


@dataclass(frozen=True)
class Scale:
    """What so many items took, in a process of its own.

    Attributes:
        count: how many.
        steps: what was done -> seconds.
        peak: the most memory that the process had, in MiB.
    """

    count: int
    steps: Mapping[str, float]
    peak: float


def growth(
    items: str, found: Sequence[Scale], time_goal: Goal | None = None, memory_goal: Goal | None = None
) -> list[Measurement]:
    """Seconds with the ratio of the time of an item to that of the size before, memory with the ratio of all of it.

    Args:
        items: what they are called.
        found: the smallest size first.
        time_goal: of the time of an item in all steps, from the size before the last to the last.
        memory_goal: of the last size.
    """
    measurements = []
    for before, now in zip([None, *found[:-1]], found, strict=True):
        last = now is found[-1]
        seconds_before = _with_all(before) if before else {}
        for step, seconds in _with_all(now).items():
            each = seconds / now.count / (seconds_before[step] / before.count) if before else None
            measurements.append(
                Measurement(
                    f"{now.count:,} {items}: {step}",
                    seconds,
                    "s",
                    "time",
                    each,
                    f"each of {before.count:,}" if before else "",
                    time_goal if last and before and step == ALL_STEPS else None,
                )
            )
        measurements.append(
            Measurement(
                f"{now.count:,} {items}: peak memory",
                now.peak,
                "MiB",
                "memory",
                now.peak / before.peak if before else None,
                f"{before.count:,} {items}" if before else "",
                memory_goal if last else None,
            )
        )
    return measurements


def _with_all(scale: Scale) -> dict[str, float]:
    return {**scale.steps, ALL_STEPS: sum(scale.steps.values())}
