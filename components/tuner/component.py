"""Tuner: TFX's, which also keeps what became of each trial."""

from __future__ import annotations

from tfx import components
from tfx.dsl.components.base import executor_spec

from components.tuner.executor import Executor


class Tuner(components.Tuner):
    """TFX's Tuner with another executor.

    A search that was killed goes on where it was, with the same data, config and code. `tuner_results` holds, besides
    TFX's results, a TensorBoard log of each trial, and those trials that failed, see trials.py. A search in which all
    failed ends in a TrainingError.
    """

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
