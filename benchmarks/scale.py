"""Time and memory by the number of items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.harness.measurement import Goal, Measurement

# A step that took less with the size before has no goal: the ratio is chance.
LEAST_SECONDS = 0.1


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
    items: str, found: Sequence[Scale], step_goal: Goal | None = None, memory_goal: Goal | None = None
) -> list[Measurement]:
    """Seconds with the ratio of the time of an item to that of the size before, memory with the ratio of all of it.

    Args:
        items: what they are called.
        found: the smallest size first.
        step_goal: of the time of an item, from the size before the last to the last.
        memory_goal: of the last size.
    """
    measurements = []
    for before, now in zip([None, *found[:-1]], found, strict=True):
        last = now is found[-1]
        for step, seconds in now.steps.items():
            each = seconds / now.count / (before.steps[step] / before.count) if before else None
            goal = step_goal if last and before and before.steps[step] >= LEAST_SECONDS else None
            measurements.append(
                Measurement(
                    f"{now.count:,} {items}: {step}",
                    seconds,
                    "s",
                    "time",
                    each,
                    f"each of {before.count:,}" if before else "",
                    goal,
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
