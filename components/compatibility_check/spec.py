"""The check's inputs and parameters."""

from __future__ import annotations

from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter


class CompatibilityCheckSpec(ComponentSpec):
    """No outputs: it stops the run, or does not."""

    PARAMETERS = {"class_changes": ExecutionParameter(type=str)}
    INPUTS = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "baseline_model": ChannelParameter(type=standard_artifacts.Model),
    }
    OUTPUTS: dict[str, ChannelParameter] = {}
