"""ServingCheck's executor: stamps the model with warm-up requests, checks that copy, and blesses it or not."""

from __future__ import annotations

import json
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from components.serving_check.check import REPORT_FILE, Report, check, read_provenance, remark
from components.serving_check.model_process import ModelProcess
from serving.reference_predictions import FILE_NAME, UnknownRule
from trainers.artifacts import PROVENANCE_FILE


class Executor(base_executor.BaseExecutor):
    """Writes report.json and, of a blessed model, the stamped copy."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Check the model; one that fails is not blessed, which stops no run."""
        timeout_seconds = exec_properties["timeout_seconds"]
        # First of all: TensorFlow's import in the other process takes longer than everything else here.
        with ModelProcess(timeout_seconds) as process:
            self._log_startup(input_dict, output_dict, exec_properties)
            model = artifact_utils.get_single_instance(input_dict["model"])
            blessing = artifact_utils.get_single_instance(output_dict["blessing"])
            split = artifact_utils.get_split_uri(input_dict["examples"], exec_properties["eval_split"])
            provenance = read_provenance(f"{model.uri}/{PROVENANCE_FILE}")
            stamped = path_utils.stamped_model_path(blessing.uri)
            io_utils.copy_dir(
                path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model)), stamped
            )
            report = check(
                process,
                saved_model=stamped,
                reference=f"{model.uri}/{FILE_NAME}",
                example_files=sorted(fileio.glob(f"{split}/*")),
                tolerance=float(exec_properties["tolerance"]),
                maximum_examples=exec_properties["maximum_examples"],
                timeout_seconds=timeout_seconds,
                feature_of_input=json.loads(exec_properties["feature_of_input"]),
                unknown=UnknownRule.of(provenance),
            )
        _bless(blessing, report)
        # Beside the verdict, for whoever reads it: what is checked is the same for every precision.
        blessing.set_string_custom_property("remark", remark(provenance))
        if not report.blessed:
            fileio.rmtree(stamped)


def _bless(blessing: types.Artifact, report: Report) -> None:
    """File and property names are InfraValidator's, which Pusher and its like read."""
    io_utils.write_string_file(f"{blessing.uri}/{REPORT_FILE}", json.dumps(report.as_json(), indent=2))
    io_utils.write_string_file(f"{blessing.uri}/{'INFRA_BLESSED' if report.blessed else 'INFRA_NOT_BLESSED'}", "")
    blessing.set_int_custom_property("blessed", int(report.blessed))
    blessing.set_int_custom_property("has_model", int(report.blessed))
    blessing.set_string_custom_property("reason", "\n".join(report.reasons))
