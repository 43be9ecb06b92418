"""The baseline's output and parameters."""

from __future__ import annotations

from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter


class BaselineSpec(ComponentSpec):
    """No inputs: what is served is known to the model base path alone."""

    PARAMETERS = {"base_path": ExecutionParameter(type=str), "run_id": ExecutionParameter(type=str)}
    INPUTS: dict[str, ChannelParameter] = {}
    OUTPUTS = {"model": ChannelParameter(type=standard_artifacts.Model)}
