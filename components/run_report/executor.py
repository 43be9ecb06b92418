"""Makes the report inside of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
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
