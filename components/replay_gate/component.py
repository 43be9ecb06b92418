"""ReplayGate: asks a candidate what the served model was asked, and keeps back what answers too differently."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tfx import types
from tfx.components.util import model_utils
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.orchestration import data_types
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils, path_utils

from components.evaluator.options import ReplayOptions
from components.replay_gate.replay import beyond, replay_requests
from components.request_logs import find_logs

REPLAY_FILE = "replay.json"


class Executor(base_executor.BaseExecutor):
    """Blesses, or not, and says why in `reason`; what came of the replay is in replay.json."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Replay the logged requests.

        Raises:
            BrokenInput: there is no log, or it cannot be read.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        served, model = (artifact_utils.get_single_instance(input_dict[key]) for key in ("baseline_model", "model"))
        refused = _refused(input_dict)
        reasons: list[str] = []
        if refused:
            remark = f"not replayed: {refused}"
        elif not served.get_int_custom_property("has_model"):
            remark = "not replayed: nothing was served before"
        else:
            options = ReplayOptions.model_validate_json(exec_properties["options"])
            replay = replay_requests(
                find_logs(options.logs),
                exec_properties["model_name"],
                path_utils.serving_model_path(served.uri),
                path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model)),
                json.loads(exec_properties["slices"]),
                json.loads(exec_properties["feature_of_input"]),
                options.maximum_rows,
            )
            io_utils.write_string_file(f"{blessing.uri}/{REPLAY_FILE}", json.dumps(replay.as_json(), indent=2))
            reasons, remark = beyond(replay, options), f"{replay.whole.rows:,} logged rows replayed"
        io_utils.write_string_file(f"{blessing.uri}/{'NOT_BLESSED' if reasons else 'BLESSED'}", "")
        blessing.set_int_custom_property("blessed", int(not reasons))
        blessing.set_string_custom_property("reason", "\n".join(reasons))
        blessing.set_string_custom_property("remark", remark)


def _refused(inputs: Mapping[str, list[types.Artifact]]) -> str:
    """Which gate before this one refused the model, "" for none: then there is nothing to replay."""
    if not model_utils.is_model_blessed(artifact_utils.get_single_instance(inputs["model_blessing"])):
        return "the Evaluator did not bless the model"
    if not model_utils.is_infra_validated(artifact_utils.get_single_instance(inputs["infra_blessing"])):
        return "the serving check failed"
    return ""


class ReplayGateSpec(ComponentSpec):
    """`blessing` is of the Evaluator's type, which Kubeflow v2 knows."""

    PARAMETERS = {
        "options": ExecutionParameter(type=str),
        "slices": ExecutionParameter(type=str),
        "feature_of_input": ExecutionParameter(type=str),
        "model_name": ExecutionParameter(type=str),
        "run_id": ExecutionParameter(type=str),
    }
    INPUTS = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "baseline_model": ChannelParameter(type=standard_artifacts.Model),
        "model_blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
        "infra_blessing": ChannelParameter(type=standard_artifacts.InfraBlessing),
    }
    OUTPUTS = {"blessing": ChannelParameter(type=standard_artifacts.ModelBlessing)}


class ReplayGate(base_component.BaseComponent):
    """Blesses a model that answers logged requests much as the served one does, and not much slower.

    Args:
        model: the candidate.
        baseline_model: the output of Baseline; without a model in it every candidate is blessed.
        model_blessing: the Evaluator's. What it, or `infra_blessing`, ServingCheck's, refuses is not replayed.
        options: where the logs are, and the bounds.
        slices: columns, of which each combination of values has to keep the bound by itself.
        feature_of_input: the column behind each input of another name.
        model_name: what the model is called where it is served.
        run_id: a string that no earlier run had: logs grow.
    """

    SPEC_CLASS = ReplayGateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: types.BaseChannel,
        baseline_model: types.BaseChannel,
        model_blessing: types.BaseChannel,
        infra_blessing: types.BaseChannel,
        options: ReplayOptions,
        slices: Sequence[Sequence[str]],
        feature_of_input: Mapping[str, str],
        model_name: str,
        run_id: str | data_types.RuntimeParameter,
    ) -> None:
        super().__init__(
            ReplayGateSpec(
                model=model,
                baseline_model=baseline_model,
                model_blessing=model_blessing,
                infra_blessing=infra_blessing,
                options=options.model_dump_json(),
                slices=json.dumps([list(columns) for columns in slices]),
                feature_of_input=json.dumps(dict(feature_of_input)),
                model_name=model_name,
                run_id=run_id,
                blessing=types.Channel(type=standard_artifacts.ModelBlessing),
            )
        )
