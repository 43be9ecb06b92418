"""Stops a run on a span that differs too much from the one before it."""

from __future__ import annotations

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.drift_gate.executor import Executor


class DriftGateSpec(ComponentSpec):
    """`drift` is of a standard type that Kubeflow v2 knows: what was found in examples."""

    PARAMETERS = {"previous_span": ExecutionParameter(type=str)}
    INPUTS = {
        "anomalies": ChannelParameter(type=standard_artifacts.ExampleAnomalies),
        "statistics": ChannelParameter(type=standard_artifacts.ExampleStatistics),
    }
    OUTPUTS = {"drift": ChannelParameter(type=standard_artifacts.ExampleAnomalies)}


class DriftGate(base_component.BaseComponent):
    """Ends the run with a sentence for each column that drifted; every measured divergence is in drift.json.

    DistributionValidator itself leaves a run green, whatever it finds.

    Args:
        anomalies: DistributionValidator's, of pairs of splits <span>_previous.
        statistics: of the same splits.
        previous_span: what the span is called that the split `previous` holds.
    """

    SPEC_CLASS = DriftGateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, anomalies: types.BaseChannel, statistics: types.BaseChannel, previous_span: str) -> None:
        super().__init__(
            DriftGateSpec(
                anomalies=anomalies,
                statistics=statistics,
                previous_span=previous_span,
                drift=types.Channel(type=standard_artifacts.ExampleAnomalies),
            )
        )
