"""ServingCheck: whether the exported model answers, as a server loads it, what the trained model says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils, path_utils

from components.serving_check.check import REPORT_FILE, Report, check, read_provenance, remark
from components.serving_check.model_process import ModelProcess
from serving.answers import UnknownRule
from serving.reference_predictions import FILE_NAME
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


# Float32 rounding depends on the batch size: the order of the sums differs between the kernels that TensorFlow picks.
TOLERANCE = 1e-5


class ServingCheck(base_component.BaseComponent):
    """Blesses a model that a server can load and that answers raw requests as the trained model does.

    Stands in for InfraValidator, which needs Docker and does not run on Kubeflow v2 or Vertex. The blessing holds the
    model with warm-up requests in it (raw examples of the eval split), and report.json.

    Args:
        model: the Trainer's, with its reference predictions.
        examples: the raw examples, ExampleGen's.
        eval_split: the split that the reference predictions are of.
        tolerance: how far a probability may be from its reference; a label may differ only where the two classes'
            reference probabilities are closer to each other than that.
        maximum_examples: how many examples are sent at most; of more, the same choice in each run.
        timeout_seconds: how long the model may take to load, and for each answer.
        feature_of_input: the feature behind each input of another name.
    """

    SPEC_CLASS = ServingCheckSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: types.BaseChannel,
        examples: types.BaseChannel,
        eval_split: str = "eval",
        tolerance: float = TOLERANCE,
        maximum_examples: int = 1000,
        timeout_seconds: int = 300,
        feature_of_input: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            ServingCheckSpec(
                model=model,
                examples=examples,
                eval_split=eval_split,
                tolerance=repr(float(tolerance)),
                maximum_examples=maximum_examples,
                timeout_seconds=timeout_seconds,
                feature_of_input=json.dumps(feature_of_input or {}),
                blessing=types.Channel(type=standard_artifacts.InfraBlessing),
            )
        )
