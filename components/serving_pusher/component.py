"""ServingPusher: publishes a blessed model into the model base path."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.orchestration import data_types
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.serving_pusher.executor import Executor


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
        "replay_blessing": ChannelParameter(type=standard_artifacts.ModelBlessing, optional=True),
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation, optional=True),
    }
    OUTPUTS = {"pushed_model": ChannelParameter(type=standard_artifacts.PushedModel)}


class ServingPusher(base_component.BaseComponent):
    """Pusher on `serving.model_store`: a version becomes visible complete or not at all, and nothing is pushed twice.

    `pushed_model` has Pusher's properties (`pushed`, `pushed_destination`, `pushed_version`) and a `reason`.

    Args:
        model: the Trainer's, with its provenance.json.
        base_path: the model base path.
        run_id: a string that no earlier run had: a cached push would never look whether the model is still there.
        model_name: what the model is called where it is served.
        model_blessing: the Evaluator's; nothing is published where it did not bless.
        infra_blessing: ServingCheck's; likewise, and the model with the warm-up requests in it is what is published.
        replay_blessing: ReplayGate's; likewise.
        evaluation: the Evaluator's metrics, for the provenance.
        data_spans: name -> fingerprint of the spans that the data came in, if they did, for the provenance.
    """

    SPEC_CLASS = ServingPusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: types.BaseChannel,
        base_path: str,
        run_id: str | data_types.RuntimeParameter,
        model_name: str,
        model_blessing: types.BaseChannel | None = None,
        infra_blessing: types.BaseChannel | None = None,
        replay_blessing: types.BaseChannel | None = None,
        evaluation: types.BaseChannel | None = None,
        data_spans: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            ServingPusherSpec(
                model=model,
                model_blessing=model_blessing,
                infra_blessing=infra_blessing,
                replay_blessing=replay_blessing,
                evaluation=evaluation,
                base_path=base_path,
                run_id=run_id,
                model_name=model_name,
                data_spans=json.dumps(data_spans) if data_spans else None,
                pushed_model=types.Channel(type=standard_artifacts.PushedModel),
            )
        )
