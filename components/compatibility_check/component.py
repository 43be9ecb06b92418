"""CompatibilityCheck: compares what a client sees of the candidate with what it sees of the served model."""

from __future__ import annotations

from typing import Any, Literal

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import path_utils

from components.compatibility_check.changes import answer_changes, signature_changes
from components.errors import IncompatibleModel
from components.serving_check.candidate import read_signatures


class Executor(base_executor.BaseExecutor):
    """Raises where it stops the run."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Compare the models.

        Raises:
            IncompatibleModel: a client of the served model could not use the candidate.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        served = artifact_utils.get_single_instance(input_dict["baseline_model"])
        if not served.get_int_custom_property("has_model"):
            return
        candidate = artifact_utils.get_single_uri(input_dict["model"])
        before, after = path_utils.serving_model_path(served.uri), path_utils.serving_model_path(candidate)
        changes = signature_changes(read_signatures(before), read_signatures(after))
        if exec_properties["class_changes"] == "stop":
            changes += answer_changes(before, candidate)
        if changes:
            version = served.get_int_custom_property("served_version")
            raise IncompatibleModel("\n".join(f"compared with version {version}, served now: {c}" for c in changes))


class CompatibilityCheckSpec(ComponentSpec):
    """No outputs: it stops the run, or does not."""

    PARAMETERS = {"class_changes": ExecutionParameter(type=str)}
    INPUTS = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "baseline_model": ChannelParameter(type=standard_artifacts.Model),
    }
    OUTPUTS: dict[str, ChannelParameter] = {}


class CompatibilityCheck(base_component.BaseComponent):
    """Ends the run where requests to the served model would fail, or mean something else, with the candidate.

    Args:
        model: the candidate.
        baseline_model: the output of Baseline; without a model in it everything is compatible.
        class_changes: "allow" lets classes come and go.
    """

    SPEC_CLASS = CompatibilityCheckSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self, model: types.BaseChannel, baseline_model: types.BaseChannel, class_changes: Literal["stop", "allow"]
    ) -> None:
        super().__init__(
            CompatibilityCheckSpec(model=model, baseline_model=baseline_model, class_changes=class_changes)
        )
