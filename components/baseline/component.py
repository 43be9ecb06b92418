"""Baseline: brings the model that is served now into a run."""

from __future__ import annotations

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.orchestration import data_types
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.baseline.executor import Executor


class BaselineSpec(ComponentSpec):
    """No inputs: what is served is known to the model base path alone."""

    PARAMETERS = {"base_path": ExecutionParameter(type=str), "run_id": ExecutionParameter(type=str)}
    INPUTS: dict[str, ChannelParameter] = {}
    OUTPUTS = {"model": ChannelParameter(type=standard_artifacts.Model)}


class Baseline(base_component.BaseComponent):
    """Copies the served model into its output `model`, whose `has_model` is 0 where nothing is served.

    TFX's own way, a Resolver for the latest blessed model, does not run on the open-source Kubeflow backend, and
    answers another question: a blessed model may never have been published, or may have been withdrawn since.

    Args:
        base_path: the model base path.
        run_id: a string that no earlier run had, so that no cached copy of an earlier served model is used.
    """

    SPEC_CLASS = BaselineSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, base_path: str, run_id: str | data_types.RuntimeParameter) -> None:
        super().__init__(
            BaselineSpec(base_path=base_path, run_id=run_id, model=types.Channel(type=standard_artifacts.Model))
        )
