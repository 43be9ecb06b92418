"""RunReport: makes the report inside of a run, as its last step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.orchestration import data_types
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.types.experimental.simple_artifacts import File
from tfx.utils import io_utils, path_utils

from components.run_report.finished_run import FinishedRun, RunArtifact, ServedModel
from components.run_report.pages import report_page
from serving.model_store import PROVENANCE_FILE
from trainers.artifacts import PROVENANCE_FILE as TRAINER_PROVENANCE_FILE

REPORT_PAGE = "report.html"

# A directory with the page, of a type that Kubeflow v2 knows: it takes none of ours.
RunReportArtifact = File


class Executor(base_executor.BaseExecutor):
    """Writes report.html."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        self._log_startup(input_dict, output_dict, exec_properties)
        config = json.loads(exec_properties["config"])
        artifacts = {role: _run_artifact(found[0]) for role, found in input_dict.items() if found}
        run = FinishedRun(
            name=config["name"],
            run_id=exec_properties["run_id"],
            config=config,
            artifacts=artifacts,
            served=_served(artifacts, exec_properties["run_id"]),
        )
        report = artifact_utils.get_single_uri(output_dict["report"])
        io_utils.write_string_file(f"{report}/{REPORT_PAGE}", report_page(run))


def _run_artifact(artifact: types.Artifact) -> RunArtifact:
    recorded = artifact.mlmd_artifact
    values: dict[str, Any] = {
        name: getattr(value, kind) for name, value in recorded.properties.items() if (kind := value.WhichOneof("value"))
    }
    values |= {name: _value(artifact.get_custom_property(name)) for name in recorded.custom_properties}
    return RunArtifact(artifact.uri, {name: value for name, value in values.items() if value is not None})


def _value(value: Any) -> Any:
    """Kubeflow hands on every number as a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _served(artifacts: Mapping[str, RunArtifact], run_id: str) -> ServedModel | None:
    """What this run published, else what was served when it began."""
    pushed, baseline = artifacts.get("pushed_model"), artifacts.get("baseline_model")
    if pushed and pushed.flag("pushed"):
        provenance = _json(f"{artifacts['model'].uri}/{TRAINER_PROVENANCE_FILE}") | {"run_id": run_id}
        return _model(pushed.text("pushed_version"), pushed.text("pushed_destination"), provenance)
    if baseline and baseline.flag("has_model"):
        path = path_utils.serving_model_path(baseline.uri)
        return _model(baseline.text("served_version"), path, _json(f"{path}/{PROVENANCE_FILE}"))
    return None


def _model(version: str, path: str, provenance: Mapping[str, Any]) -> ServedModel:
    return ServedModel(
        version=int(version),
        path=path,
        published_at=str(provenance.get("published_at", "")),
        run_id=str(provenance.get("run_id", "")),
        data_fingerprint=str(provenance.get("data_fingerprint", "")),
        code_fingerprint=str(provenance.get("code_fingerprint", "")),
        data_spans=tuple(provenance.get("data_spans", ())),
    )


def _json(path: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(io_utils.read_string_file(path)) if fileio.exists(path) else {}
    return content


class RunReportSpec(ComponentSpec):
    """The inputs are what FinishedRun calls the roles of artifacts; only `examples` and `statistics` must be there."""

    PARAMETERS = {"config": ExecutionParameter(type=str), "run_id": ExecutionParameter(type=str)}
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "statistics": ChannelParameter(type=standard_artifacts.ExampleStatistics),
        "schema": ChannelParameter(type=standard_artifacts.Schema, optional=True),
        "anomalies": ChannelParameter(type=standard_artifacts.ExampleAnomalies, optional=True),
        "verdict": ChannelParameter(type=standard_artifacts.ExampleAnomalies, optional=True),
        "model": ChannelParameter(type=standard_artifacts.Model, optional=True),
        "baseline_model": ChannelParameter(type=standard_artifacts.Model, optional=True),
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation, optional=True),
        "model_blessing": ChannelParameter(type=standard_artifacts.ModelBlessing, optional=True),
        "infra_blessing": ChannelParameter(type=standard_artifacts.InfraBlessing, optional=True),
        "replay_blessing": ChannelParameter(type=standard_artifacts.ModelBlessing, optional=True),
        "pushed_model": ChannelParameter(type=standard_artifacts.PushedModel, optional=True),
    }
    OUTPUTS = {"report": ChannelParameter(type=RunReportArtifact)}


class RunReport(base_component.BaseComponent):
    """Writes report.html into its output `report`.

    For clusters, where nothing of ours is left once the pipeline has ended. On one machine `ingraph run` makes the same
    page after the end, of a run that a gate stopped too, and with the steps and their times: a component sees neither.

    Args:
        config: the validated config, as JSON.
        run_id: what the run is called.
        inputs: the artifacts by role, see RunReportSpec.
    """

    SPEC_CLASS = RunReportSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, config: str, run_id: str | data_types.RuntimeParameter, **inputs: types.BaseChannel) -> None:
        super().__init__(
            RunReportSpec(config=config, run_id=run_id, **inputs, report=types.Channel(type=RunReportArtifact))
        )
