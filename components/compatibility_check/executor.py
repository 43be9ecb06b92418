"""Reads both models' signatures and classes, and stops the run or lets it pass."""

from __future__ import annotations

from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
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
