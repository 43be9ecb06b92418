"""A pipeline beside a script that does the same without it."""

from __future__ import annotations

from benchmarks.harness.measurement import Measurement
from benchmarks.timed_run import TimedRun


def beside_script(run: TimedRun, script: str, seconds: float) -> list[Measurement]:
    """The seconds of the script, of the whole run and of each of its components.

    Args:
        run: of the pipeline.
        script: what it is called.
        seconds: that it took, its imports apart.
    """
    return [
        Measurement(script, seconds, "s", "time"),
        Measurement("whole pipeline", run.seconds, "s", "time", run.seconds / seconds, script),
        *(Measurement(name, spent, "s", "step", spent / seconds, script) for name, spent in run.steps.items()),
    ]
