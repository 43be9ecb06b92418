"""Time and memory by the number of items, of what `ingraph run` does up to Transform."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness.measurement import Goal, Measurement

if TYPE_CHECKING:
    from pipeline.runners.beam_speedups import Speedup

LAST_STEP = "Transform"
# Other steps before it look at statistics alone, and take as long for many items as for few.
STEPS = ("CsvExampleGen", "ImageExampleGen", "StatisticsGen", LAST_STEP)


def first_steps(config_file: str, speedups: Sequence[Speedup] | None = None) -> dict[str, float]:
    """Seconds of each step that reads the data.

    Args:
        config_file: of the run; what it leaves lies beside it.
        speedups: of Apache Beam; all of them by default.
    """
    from pipeline.config import load_config
    from pipeline.dag import Locations, create_pipeline
    from pipeline.runners.beam_speedups import apply_beam_speedups
    from pipeline.runners.local import BEAM_PIPELINE_ARGS, LocalRunner
    from pipeline.tasks import raw_data, schema_file

    apply_beam_speedups(speedups)
    config, folder = load_config(config_file), str(Path(config_file).parent)
    started = time.perf_counter()
    data = raw_data(config, Path(folder))
    seconds = {"looking through": time.perf_counter() - started}
    locations = Locations(
        data=data.path,
        data_fingerprint=data.fingerprint,
        schema_file=schema_file(config),
        artifacts=f"{folder}/artifacts",
        metadata=f"{folder}/metadata.sqlite",
        base_path=f"{folder}/models",
    )

    def ended(step: str, spent: float) -> None:
        if step in STEPS:
            seconds[step] = spent
        if step == LAST_STEP:
            raise _Enough

    pipeline = create_pipeline(config, locations, "first-steps", BEAM_PIPELINE_ARGS)
    with contextlib.suppress(_Enough):
        LocalRunner("first-steps", lambda step: None, ended).run(pipeline)
    return seconds


class _Enough(Exception):
    """The steps that follow are of no interest."""


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
