"""What ML Metadata has of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from components.run_report.run_artifact import RunArtifact
from components.run_report.step import Step, StepState
from pipeline.artifact_role import artifact_role
from pipeline.metadata_store import RUN

_KNOWN_ROLES = (
    "examples",
    "statistics",
    "schema",
    "anomalies",
    "verdict",
    "span_anomalies",
    "drift",
    "transform_graph",
    "tuner_results",
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


@dataclass(frozen=True)
class RecordedRun:
    """The executions of a run and what they made.

    Attributes:
        steps: in the order in which they began; those that were not reached are not known here.
        artifacts: by role, see components.run_report.finished_run.
        base_path: the model base path, "" where no step came to it.
    """

    steps: tuple[Step, ...]
    artifacts: Mapping[str, RunArtifact]
    base_path: str


def read_recorded_run(store: MetadataStore, run_id: str) -> RecordedRun:
    """Read a run; one that the store does not know has no steps.

    Args:
        store: ML Metadata.
        run_id: what the run is called.
    """
    context = store.get_context_by_type_and_name(RUN, run_id)
    executions = store.get_executions_by_context(context.id) if context else []
    steps: list[Step] = []
    artifacts: dict[str, RunArtifact] = {}
    makers: dict[int, str] = {}
    base_path = ""
    for execution in sorted(executions, key=lambda execution: execution.id):
        name = str(execution.type.rpartition(".")[2])
        events = store.get_events_by_execution_ids([execution.id])
        outputs = {event.path.steps[0].key: event.artifact_id for event in events if _is_output(event)}
        inputs = [event.artifact_id for event in events if not _is_output(event)]
        steps.append(_step(name, execution, tuple(dict.fromkeys(makers[id_] for id_ in inputs if id_ in makers))))
        makers |= dict.fromkeys(outputs.values(), name)
        base_path = str(_values(execution.custom_properties).get("base_path", base_path))
        if execution.last_known_state in _STATES:
            for key, id_ in outputs.items():
                role = artifact_role(name, key)
                if role in _KNOWN_ROLES:
                    artifacts[role] = _artifact(store, id_)
    return RecordedRun(tuple(steps), artifacts, base_path)


def _step(name: str, execution: metadata_store_pb2.Execution, upstream: tuple[str, ...]) -> Step:
    state = _STATES.get(execution.last_known_state, "failed")
    seconds = (execution.last_update_time_since_epoch - execution.create_time_since_epoch) / 1000
    return Step(name, state, seconds if state == "done" else None, upstream)


def _artifact(store: MetadataStore, id_: int) -> RunArtifact:
    (artifact,) = store.get_artifacts_by_id([id_])
    return RunArtifact(artifact.uri, _values(artifact.properties) | _values(artifact.custom_properties))


def _is_output(event: metadata_store_pb2.Event) -> bool:
    return event.type == metadata_store_pb2.Event.OUTPUT


def _values(properties: Mapping[str, metadata_store_pb2.Value]) -> dict[str, Any]:
    return {name: getattr(value, kind) for name, value in properties.items() if (kind := value.WhichOneof("value"))}
