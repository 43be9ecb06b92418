"""ServingPusher: publishes a blessed model into the model base path, once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfx import types
from tfx.components.util import model_utils
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.orchestration import data_types
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils, path_utils

from components.dependencies import BILL_FILE, environment_bill
from components.errors import NotPublished
from components.evaluator.eval_config import overall_metrics
from components.serving_check.check import REPORT_FILE
from serving.model_store import (
    ModelStoreError,
    ModelVersion,
    WithdrawnModelError,
    check_provenance,
    fingerprints,
    publish,
    served_version,
    signing_key_of_environment,
)
from trainers.artifacts import PROVENANCE_FILE


@dataclass(frozen=True)
class Publication:
    """What became of a model: the version that serves it, None where none does, and why."""

    version: ModelVersion | None
    reason: str


def publish_once(base_path: str, saved_model: str, provenance: Mapping[str, Any]) -> Publication:
    """Publish a SavedModel unless the served version comes from the same data and code.

    An older version of the same origin does not count: since then another model has been served; nor does one that is
    not signed with the key of the environment, where there is one. With it goes the bill of what made it.

    Args:
        base_path: the model base path.
        saved_model: the directory to publish.
        provenance: what is written beside it; holds data_fingerprint and code_fingerprint.

    Raises:
        ModelStoreError: a fingerprint is missing, the key cannot be used, or the base path cannot be read or written.
    """
    check_provenance(provenance)
    key = signing_key_of_environment()
    served = served_version(base_path)
    is_signed = key is None or (served is not None and served.provenance.get("signed_by") == key.fingerprint)
    if served is not None and is_signed and fingerprints(served.provenance) == fingerprints(provenance):
        return Publication(served, f"already published as version {served.number}")
    extra_files = {BILL_FILE: environment_bill()}
    try:
        version = publish(base_path, saved_model, {**provenance, "bill_of_materials": BILL_FILE}, extra_files, key)
    except WithdrawnModelError as withdrawn:
        return Publication(None, f"not published: {withdrawn}")
    return Publication(version, f"published as version {version.number}")


Artifacts = dict[str, list[types.Artifact]]


class Executor(base_executor.BaseExecutor):
    """Writes into the model base path; the artifact itself holds no second copy."""

    def Do(  # noqa: N802 (TFX's name)
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]
    ) -> None:
        """Publish the model, or say in `reason` why not.

        Raises:
            NotPublished: the base path cannot be read or written, or the model has no provenance.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed_model = artifact_utils.get_single_instance(output_dict["pushed_model"])
        refusal = _not_blessed(input_dict)
        publication = Publication(None, refusal) if refusal else _publish(input_dict, exec_properties)
        pushed_model.set_int_custom_property("pushed", int(publication.version is not None))
        pushed_model.set_string_custom_property("reason", publication.reason)
        if publication.version is not None:
            pushed_model.set_string_custom_property("pushed_destination", publication.version.path)
            pushed_model.set_string_custom_property("pushed_version", str(publication.version.number))


def _not_blessed(inputs: Artifacts) -> str:
    """Why the model must not be published, by the rules of TFX's Pusher; "" where it may."""
    if inputs.get("model_blessing"):
        blessing = artifact_utils.get_single_instance(inputs["model_blessing"])
        if not model_utils.is_model_blessed(blessing):
            reason = blessing.get_string_custom_property("reason") or "a metric missed its threshold"
            return f"not published: the Evaluator did not bless the model: {reason}"
    if inputs.get("infra_blessing"):
        blessing = artifact_utils.get_single_instance(inputs["infra_blessing"])
        if not model_utils.is_infra_validated(blessing):
            return f"not published: the serving check failed: {blessing.get_string_custom_property('reason')}"
    if inputs.get("replay_blessing"):
        blessing = artifact_utils.get_single_instance(inputs["replay_blessing"])
        if not model_utils.is_model_blessed(blessing):
            reason = blessing.get_string_custom_property("reason")
            return f"not published: it answers logged requests too differently: {reason}"
    return ""


def _publish(inputs: Artifacts, exec_properties: dict[str, Any]) -> Publication:
    provenance = _trainer_provenance(inputs) | {
        "model_name": exec_properties["model_name"],
        "run_id": exec_properties["run_id"],
        "metrics": _metrics(inputs),
        "serving_check": _serving_check(inputs),
    }
    if exec_properties.get("data_spans"):
        provenance["data_spans"] = json.loads(exec_properties["data_spans"])
    try:
        return publish_once(exec_properties["base_path"], _saved_model(inputs), provenance)
    except ModelStoreError as error:
        raise NotPublished(str(error)) from error


def _trainer_provenance(inputs: Artifacts) -> dict[str, Any]:
    path = f"{artifact_utils.get_single_uri(inputs['model'])}/{PROVENANCE_FILE}"
    provenance: dict[str, Any] = json.loads(io_utils.read_string_file(path)) if fileio.exists(path) else {}
    return provenance


def _saved_model(inputs: Artifacts) -> str:
    if inputs.get("infra_blessing"):
        blessing = artifact_utils.get_single_instance(inputs["infra_blessing"])
        if blessing.get_int_custom_property("has_model"):
            return path_utils.stamped_model_path(blessing.uri)
    model = artifact_utils.get_single_instance(inputs["model"])
    return path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model))


def _metrics(inputs: Artifacts) -> dict[str, float]:
    return overall_metrics(artifact_utils.get_single_uri(inputs["evaluation"])) if inputs.get("evaluation") else {}


def _serving_check(inputs: Artifacts) -> dict[str, Any]:
    if not inputs.get("infra_blessing"):
        return {}
    report: dict[str, Any] = json.loads(
        io_utils.read_string_file(f"{artifact_utils.get_single_uri(inputs['infra_blessing'])}/{REPORT_FILE}")
    )
    return report


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
