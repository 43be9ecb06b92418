"""Compares what a client sees of the candidate with what it sees of the served model."""

from __future__ import annotations

from typing import Literal

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.compatibility_check.executor import Executor


class CompatibilityCheckSpec(ComponentSpec):
    """No outputs: it stops the run, or does not."""

    PARAMETERS = {"class_changes": ExecutionParameter(type=str)}
    INPUTS = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "baseline_model": ChannelParameter(type=standard_artifacts.Model),
    }
    OUTPUTS: dict[str, ChannelParameter] = {}


class CompatibilityCheck(base_component.BaseComponent):
    """Ends the run where requests to the served model would fail, or mean something else, with the candidate.

    Args:
        model: the candidate.
        baseline_model: the output of Baseline; without a model in it everything is compatible.
        class_changes: "allow" lets classes come and go.
    """

    SPEC_CLASS = CompatibilityCheckSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self, model: types.BaseChannel, baseline_model: types.BaseChannel, class_changes: Literal["stop", "allow"]
    ) -> None:
        super().__init__(
            CompatibilityCheckSpec(model=model, baseline_model=baseline_model, class_changes=class_changes)
        )
