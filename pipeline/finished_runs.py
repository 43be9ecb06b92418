"""The runs that a folder holds, read from ML Metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.io import fileio
from tfx.utils import io_utils, path_utils

from components.run_report.finished_run import FinishedRun
from components.run_report.run_artifact import RunArtifact
from components.run_report.served_model import ServedModel
from components.run_report.step import Step, StepState
from pipeline.metadata_store import open_metadata_store
from pipeline.run_record import RunRecord, read_run_record
from serving.model_store import ModelStoreError, served_version
from serving.model_store.provenance import PROVENANCE_FILE, decode

_RUN = "pipeline_run"  # TFX's name for the context of a run
# Where two components call an output the same.
_ROLES = {
    ("Baseline", "model"): "baseline_model",
    ("Evaluator", "blessing"): "model_blessing",
    ("ServingCheck", "blessing"): "infra_blessing",
}
_SHOWN_ROLES = (
    "examples",
    "statistics",
    "schema",
    "anomalies",
    "verdict",
    "transform_graph",
    "model",
    "baseline_model",
    "evaluation",
    "model_blessing",
    "infra_blessing",
    "pushed_model",
)
_STATES: dict[int, StepState] = {
    metadata_store_pb2.Execution.COMPLETE: "done",
    metadata_store_pb2.Execution.CACHED: "unchanged",
}
_KILLED = "the run was interrupted, or is still under way; running the same config again goes on where it ended"


def run_ids(folder: Path) -> list[str]:
    """The ids of the runs in the folder of a pipeline, the newest first."""
    contexts = open_metadata_store(str(folder / "metadata.sqlite")).get_contexts_by_type(_RUN)
    return [context.name for context in sorted(contexts, key=lambda context: context.id, reverse=True)]


def read_finished_run(folder: Path, run_id: str) -> FinishedRun:
    """Everything that a report is made from.

    Args:
        folder: of the runs of a pipeline.
        run_id: one of `run_ids`.
    """
    store = open_metadata_store(str(folder / "metadata.sqlite"))
    context = store.get_context_by_type_and_name(_RUN, run_id)
    executions = sorted(store.get_executions_by_context(context.id), key=lambda execution: execution.id)
    record = read_run_record(folder, run_id)
    steps = _steps(store, executions, record)
    stopped = any(step.state in ("failed", "not reached") for step in steps)
    artifacts = _artifacts(store, executions)
    return FinishedRun(
        name=folder.name,
        run_id=run_id,
        config=record.config,
        artifacts=artifacts,
        steps=steps,
        ended=record.ended or (_KILLED if stopped else ""),
        served=_served(store, executions),
        served_statistics=_served_statistics(store, artifacts),
    )


def _steps(store: MetadataStore, executions: list[metadata_store_pb2.Execution], record: RunRecord) -> tuple[Step, ...]:
    found = {}
    makers: dict[int, str] = {}
    for execution in executions:
        events = store.get_events_by_execution_ids([execution.id])
        makers |= {event.artifact_id: _name(execution) for event in events if _is_output(event)}
        state = _STATES.get(execution.last_known_state, "failed")
        seconds = (execution.last_update_time_since_epoch - execution.create_time_since_epoch) / 1000
        inputs = [event.artifact_id for event in events if not _is_output(event)]
        # A step may wait for another without taking its outputs; only the record knows that.
        upstream = record.steps.get(_name(execution)) or dict.fromkeys(makers[id_] for id_ in inputs if id_ in makers)
        found[_name(execution)] = Step(_name(execution), state, seconds if state == "done" else None, tuple(upstream))
    planned = {
        name: Step(name, "not reached", None, tuple(upstream))
        for name, upstream in record.steps.items()
        if name not in found
    }
    return tuple({**found, **planned}.values())


def _artifacts(store: MetadataStore, executions: list[metadata_store_pb2.Execution]) -> dict[str, RunArtifact]:
    artifacts = {}
    for execution in executions:
        for event in store.get_events_by_execution_ids([execution.id]):
            key = event.path.steps[0].key
            role = _ROLES.get((_name(execution), key), key)
            if _is_output(event) and role in _SHOWN_ROLES and execution.last_known_state in _STATES:
                (artifact,) = store.get_artifacts_by_id([event.artifact_id])
                artifacts[role] = RunArtifact(
                    artifact.uri, _values(artifact.properties) | _values(artifact.custom_properties)
                )
    return artifacts


def _served(store: MetadataStore, executions: list[metadata_store_pb2.Execution]) -> ServedModel | None:
    base_paths = [
        execution.custom_properties["base_path"].string_value
        for execution in executions
        if "base_path" in execution.custom_properties
    ]
    try:
        version = served_version(base_paths[-1]) if base_paths else None
    except ModelStoreError:  # why it cannot be read is what the run ended with
        return None
    if version is None:
        return None
    made_by = str(version.provenance.get("run_id", ""))
    return ServedModel(
        version=version.number,
        path=version.path,
        published_at=str(version.provenance.get("published_at", "")),
        run_id=made_by,
        data_fingerprint=str(version.provenance.get("data_fingerprint", "")),
        code_fingerprint=str(version.provenance.get("code_fingerprint", "")),
        data_span=_span(_artifacts_of(store, made_by)),
    )


def _served_statistics(store: MetadataStore, artifacts: Mapping[str, RunArtifact]) -> RunArtifact | None:
    """The statistics of the run that made the baseline, where they are in the same store."""
    baseline = artifacts.get("baseline_model")
    if baseline is None or not baseline.flag("has_model"):
        return None
    path = f"{path_utils.serving_model_path(baseline.uri)}/{PROVENANCE_FILE}"
    provenance = decode(io_utils.read_bytes_file(path)) if fileio.exists(path) else {}
    return _artifacts_of(store, str(provenance.get("run_id", ""))).get("statistics")


def _artifacts_of(store: MetadataStore, run_id: str) -> dict[str, RunArtifact]:
    context = store.get_context_by_type_and_name(_RUN, run_id)
    return _artifacts(store, store.get_executions_by_context(context.id)) if context else {}


def _span(artifacts: Mapping[str, RunArtifact]) -> str:
    return str(artifacts["examples"].properties.get("span", "")) if "examples" in artifacts else ""


def _name(execution: metadata_store_pb2.Execution) -> str:
    return str(execution.type.rpartition(".")[2])


def _is_output(event: metadata_store_pb2.Event) -> bool:
    return event.type == metadata_store_pb2.Event.OUTPUT


def _values(properties: Mapping[str, metadata_store_pb2.Value]) -> dict[str, Any]:
    return {name: getattr(value, kind) for name, value in properties.items() if (kind := value.WhichOneof("value"))}
