"""The gate's inputs, output and parameters."""

from __future__ import annotations

from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter


class DriftGateSpec(ComponentSpec):
    """`drift` is of a standard type that Kubeflow v2 knows: what was found in examples."""

    PARAMETERS = {"previous_span": ExecutionParameter(type=str)}
    INPUTS = {
        "anomalies": ChannelParameter(type=standard_artifacts.ExampleAnomalies),
        "statistics": ChannelParameter(type=standard_artifacts.ExampleStatistics),
    }
    OUTPUTS = {"drift": ChannelParameter(type=standard_artifacts.ExampleAnomalies)}
