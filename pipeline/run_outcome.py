"""What a run came to, as ML Metadata has it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf
from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from components.data_gate.executor import VERDICT_FILE
from components.evaluator.overall_metrics import overall_metrics


@dataclass(frozen=True)
class RunOutcome:
    """The verdicts and results of one run.

    Attributes:
        warnings: what DataGate let pass, in words.
        metrics: of the whole eval split, by name.
        blessed: the Evaluator's verdict; None where the run did not come that far. Likewise the next two.
        evaluation_reason: why the Evaluator did not bless.
        infra_blessed: ServingCheck's.
        infra_reason: why ServingCheck did not bless.
        infra_remark: what it says besides its verdict.
        pushed: whether a version of this run is published.
        pushed_version: its number.
        pushed_destination: where it lies.
        pushed_reason: what ServingPusher says of it.
    """

    warnings: tuple[str, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    blessed: bool | None = None
    evaluation_reason: str = ""
    infra_blessed: bool | None = None
    infra_reason: str = ""
    infra_remark: str = ""
    pushed: bool | None = None
    pushed_version: str = ""
    pushed_destination: str = ""
    pushed_reason: str = ""


def read_outcome(metadata: str, run_id: str) -> RunOutcome:
    """Read the outcome of a run.

    Args:
        metadata: the SQLite file.
        run_id: what the run was called.
    """
    store = _store(metadata)
    context = store.get_context_by_type_and_name("pipeline_run", run_id)
    if context is None:
        return RunOutcome()
    artifacts = {_kind(artifact): artifact for artifact in store.get_artifacts_by_context(context.id)}
    blessing, infra_blessing = artifacts.get("ModelBlessing"), artifacts.get("InfraBlessing")
    evaluation, pushed = artifacts.get("ModelEvaluation"), artifacts.get("PushedModel")
    verdict = artifacts.get(VERDICT_FILE)
    return RunOutcome(
        warnings=_warnings(verdict.uri) if verdict else (),
        metrics=overall_metrics(evaluation.uri) if evaluation else {},
        blessed=_flag(blessing, "blessed"),
        evaluation_reason=_text(blessing, "reason"),
        infra_blessed=_flag(infra_blessing, "blessed"),
        infra_reason=_text(infra_blessing, "reason"),
        infra_remark=_text(infra_blessing, "remark"),
        pushed=_flag(pushed, "pushed"),
        pushed_version=_text(pushed, "pushed_version"),
        pushed_destination=_text(pushed, "pushed_destination"),
        pushed_reason=_text(pushed, "reason"),
    )


def cached_nodes(metadata: str, run_id: str) -> frozenset[str]:
    """The ids of the nodes of a run whose earlier outputs were used."""
    store = _store(metadata)
    context = store.get_context_by_type_and_name("pipeline_run", run_id)
    types = {type_.id: type_.name for type_ in store.get_execution_types()}
    return frozenset(
        types[execution.type_id].rpartition(".")[2]
        for execution in (store.get_executions_by_context(context.id) if context else [])
        if execution.last_known_state == metadata_store_pb2.Execution.CACHED
    )


def _store(metadata: str) -> MetadataStore:
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = metadata
    return MetadataStore(config)


def _kind(artifact: metadata_store_pb2.Artifact) -> str:
    """The artifact's type; DataGate's verdict is of the type of ExampleValidator's anomalies, but has its own file."""
    return VERDICT_FILE if tf.io.gfile.exists(f"{artifact.uri}/{VERDICT_FILE}") else str(artifact.type)


def _warnings(verdict: str) -> tuple[str, ...]:
    with tf.io.gfile.GFile(f"{verdict}/{VERDICT_FILE}") as file:
        return tuple(json.loads(file.read())["warnings"])


def _flag(artifact: Any, name: str) -> bool | None:
    if artifact is None:
        return None
    return bool(_value(artifact, name).int_value)


def _text(artifact: Any, name: str) -> str:
    return "" if artifact is None else str(_value(artifact, name).string_value)


def _value(artifact: Any, name: str) -> Any:
    return artifact.custom_properties[name] if name in artifact.custom_properties else artifact.properties[name]
