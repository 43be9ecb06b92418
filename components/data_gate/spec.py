"""The gate's inputs, outputs and parameters."""

from __future__ import annotations

from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter


class DataGateSpec(ComponentSpec):
    """`verdict` is of a standard type that Kubeflow v2 knows: what was found in examples."""

    PARAMETERS = {
        "label": ExecutionParameter(type=str),
        "schema_is_curated": ExecutionParameter(type=int),
        "minimum_examples": ExecutionParameter(type=int),
        "schema_path": ExecutionParameter(type=str),
    }
    INPUTS = {
        "anomalies": ChannelParameter(type=standard_artifacts.ExampleAnomalies),
        "statistics": ChannelParameter(type=standard_artifacts.ExampleStatistics),
        "schema": ChannelParameter(type=standard_artifacts.Schema),
    }
    OUTPUTS = {"verdict": ChannelParameter(type=standard_artifacts.ExampleAnomalies)}
