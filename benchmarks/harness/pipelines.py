"""Pipelines and parts of them, run to be measured: all steps, those up to Transform, Transform's graph alone."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import numpy as np
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tfx_bsl.public import tfxio

from benchmarks.harness.results import Goal, Measurement
from benchmarks.harness.running import forget_peak_memory, peak_memory, watching_workers
from pipeline.runners.local import BEAM_PIPELINE_ARGS
from serving.loading import garbage_collection_paused

if TYPE_CHECKING:
    from pipeline.runners.beam_speedups import Speedup

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


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


LAST_STEP = "Transform"
# Other steps before it look at statistics alone, and take as long for many items as for few.
STEPS = ("TableExampleGen", "ImageExampleGen", "StatisticsGen", LAST_STEP)


def first_steps(config_file: str, speedups: Sequence[Speedup] | None = None) -> dict[str, float]:
    """Seconds of each step that reads the data, up to Transform; the arguments are steps_until's."""
    return {name: seconds for name, (seconds, _) in steps_until(LAST_STEP, config_file, speedups, STEPS).items()}


def steps_until(
    last: str, config_file: str, speedups: Sequence[Speedup] | None = None, only: Sequence[str] = ()
) -> dict[str, tuple[float, float]]:
    """Step -> seconds, and the most memory in MiB that this process, or one that it started, had in it.

    Args:
        last: after which the run ends.
        config_file: of the run; what it leaves lies beside it.
        speedups: of Apache Beam; all of them by default.
        only: these steps, or all.
    """
    from pipeline.config import load_config
    from pipeline.dag import Locations, create_pipeline
    from pipeline.runners.beam_speedups import apply_beam_speedups
    from pipeline.runners.local import LocalRunner
    from pipeline.tasks import raw_data, schema_file

    apply_beam_speedups(speedups)
    config, folder = load_config(config_file), str(Path(config_file).parent)
    started = time.perf_counter()
    forget_peak_memory()
    data = raw_data(config)
    found = {"looking through": (time.perf_counter() - started, peak_memory())}
    locations = Locations(
        data=data.path,
        data_fingerprint=data.fingerprint,
        schema_file=schema_file(config),
        artifacts=f"{folder}/artifacts",
        metadata=f"{folder}/metadata.sqlite",
        base_path=f"{folder}/models",
    )

    pipeline = create_pipeline(config, locations, "first-steps", config.beam.pipeline_args())
    with contextlib.suppress(_Enough), watching_workers() as peak_of_workers:

        def ended(step: str, spent: float) -> None:
            peak = max(peak_memory(), peak_of_workers())
            if not only or step in only:
                found[step] = spent, peak
            if step == last:
                raise _Enough

        LocalRunner("first-steps", lambda step: forget_peak_memory(), ended).run(pipeline)
    return found


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


THEIRS = "scikit-learn"


def quality_by_split(
    unit: str, ours: Sequence[float], theirs: Sequence[float], allowed: float = 0.0
) -> list[Measurement]:
    """The means of both, and each split beside the other's.

    Args:
        unit: "AUC" or "accuracy".
        ours: of each split.
        theirs: of the same splits.
        allowed: how much lower our mean may be.
    """
    mean, their_mean = float(np.mean(ours)), float(np.mean(theirs))
    of = f"{unit}, mean of {len(ours)} splits"
    goal = Goal(round(1 - allowed / their_mean, 4))
    each = [
        Measurement(f"{unit}, split {seed}: ingraph", our, unit, "quality", our / their, THEIRS)
        for seed, (our, their) in enumerate(zip(ours, theirs, strict=True))
    ]
    return [
        Measurement(f"{of}: {THEIRS}", their_mean, unit, "quality"),
        Measurement(f"{of}: ingraph", mean, unit, "quality", mean / their_mean, THEIRS, goal),
        *(each if len(each) > 1 else []),
    ]


def transform_graph(
    preprocessing_fn: Callable[..., Any],
    custom_config: Mapping[str, Any],
    feature_spec: Mapping[str, Any],
    examples: str,
    folder: str,
) -> tft.TFTransformOutput:
    """Analyse a file of tf.Examples with a task's preprocessing_fn.

    Args:
        preprocessing_fn: of transform/<task>.py.
        custom_config: its second argument.
        feature_spec: the raw features.
        examples: a TFRecord file.
        folder: where the graph is written.
    """
    metadata = tft.DatasetMetadata.from_feature_spec(feature_spec)
    source = tfxio.TFExampleRecord(examples, schema=metadata.schema, telemetry_descriptors=["benchmark"])
    with beam.Pipeline(argv=BEAM_PIPELINE_ARGS) as pipeline, tft_beam.Context(temp_dir=f"{folder}/temporary"):
        data = (pipeline | source.BeamSource(), source.TensorAdapterConfig())
        function = data | tft_beam.AnalyzeDataset(lambda inputs: preprocessing_fn(inputs, custom_config))
        _ = function | tft_beam.WriteTransformFn(f"{folder}/graph")
        _ = metadata | tft_beam.WriteMetadata(f"{folder}/graph/{tft.TFTransformOutput.RAW_METADATA_DIR}", pipeline)
    return tft.TFTransformOutput(f"{folder}/graph")
