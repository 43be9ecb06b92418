"""Time of a pipeline's steps, beside a script that does the same without it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.measurement import Measurement
from serving.garbage_collection import garbage_collection_paused

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


@dataclass(frozen=True)
class TimedRun:
    """What a run of a pipeline took.

    Attributes:
        seconds: all of it, once libraries are imported.
        steps: component -> seconds.
        metrics: of the eval split.
    """

    seconds: float
    steps: Mapping[str, float]
    metrics: Mapping[str, float]


def timed_run(config_name: str, settings: Sequence[str] = ()) -> TimedRun:
    """Run `configs/<config_name>.yaml` as `ingraph run` does, in a folder of its own.

    Raises:
        RuntimeError: nothing was published.
    """
    with garbage_collection_paused():
        from pipeline import dag, history  # noqa: F401 (so that their import is not timed)
        from pipeline.config import load_config
        from pipeline.history import read_past_run, run_ids
        from pipeline.run import run

    with tempfile.TemporaryDirectory() as workdir:
        config = load_config(str(CONFIGS / f"{config_name}.yaml"), settings)
        started = time.perf_counter()
        run(config, workdir)
        seconds = time.perf_counter() - started
        folder = Path(workdir, config.runs, config.name)
        past = read_past_run(folder, run_ids(folder)[0])
    if past.verdict != "published":
        raise RuntimeError(f"{config_name}: {past.verdict}: {past.reason}")
    steps = {step.name: step.seconds for step in past.steps if step.seconds is not None}
    return TimedRun(seconds, steps, past.metrics)


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
