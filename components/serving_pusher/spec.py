"""The pusher's inputs, output and parameters."""

from __future__ import annotations

from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter


class ServingPusherSpec(ComponentSpec):
    """Inputs and output are named as Pusher's; `evaluation` brings the metrics for the provenance."""

    PARAMETERS = {
        "base_path": ExecutionParameter(type=str),
        "run_id": ExecutionParameter(type=str),
        "model_name": ExecutionParameter(type=str),
        "data_spans": ExecutionParameter(type=str, optional=True),
    }
    INPUTS = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "model_blessing": ChannelParameter(type=standard_artifacts.ModelBlessing, optional=True),
        "infra_blessing": ChannelParameter(type=standard_artifacts.InfraBlessing, optional=True),
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation, optional=True),
    }
    OUTPUTS = {"pushed_model": ChannelParameter(type=standard_artifacts.PushedModel)}
