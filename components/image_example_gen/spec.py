"""The component's output and parameters."""

from __future__ import annotations

from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter


class ImageExampleGenSpec(ComponentSpec):
    """Shares are text, as parameters of the other components are that are no whole numbers."""

    PARAMETERS = {
        "path": ExecutionParameter(type=str),
        "input_fingerprint": ExecutionParameter(type=str),
        "eval_share": ExecutionParameter(type=str),
        "max_unreadable_share": ExecutionParameter(type=str),
        "max_pixels": ExecutionParameter(type=int),
        "labels_required": ExecutionParameter(type=int),
    }
    INPUTS: dict[str, ChannelParameter] = {}
    OUTPUTS = {"examples": ChannelParameter(type=standard_artifacts.Examples)}
