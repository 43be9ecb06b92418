"""The check's inputs, outputs and parameters."""

from __future__ import annotations

from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter


class ServingCheckSpec(ComponentSpec):
    """Inputs and output are named as InfraValidator's, which this component stands in for."""

    PARAMETERS = {
        "eval_split": ExecutionParameter(type=str),
        "tolerance": ExecutionParameter(type=str),
        "maximum_examples": ExecutionParameter(type=int),
        "timeout_seconds": ExecutionParameter(type=int),
        "feature_of_input": ExecutionParameter(type=str),
    }
    INPUTS = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "examples": ChannelParameter(type=standard_artifacts.Examples),
    }
    OUTPUTS = {"blessing": ChannelParameter(type=standard_artifacts.InfraBlessing)}
