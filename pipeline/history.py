"""History of runs: what ML Metadata and the run's own record say of them, read in one place."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from components.data_gate.verdict import VERDICT_FILE
from components.errors import BrokenInput
from components.run_report.finished_run import RunArtifact, Step, StepState
from pipeline.exit_status import ExitStatus

if TYPE_CHECKING:
    from ml_metadata.metadata_store import MetadataStore
    from ml_metadata.proto import metadata_store_pb2

RUN = "pipeline_run"  # TFX's name for the context of a run
_RUNNING = 2  # ml_metadata.Execution.State
METADATA = "metadata.sqlite"


def open_metadata_store(path: str, writable: bool = False) -> MetadataStore:
    """The store in an SQLite file, for reading, or for writing, which makes it where it is missing."""
    from ml_metadata.metadata_store import MetadataStore
    from ml_metadata.proto import metadata_store_pb2

    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = path
    modes = metadata_store_pb2.SqliteMetadataSourceConfig
    config.sqlite.connection_mode = modes.READWRITE_OPENCREATE if writable else modes.READONLY
    return MetadataStore(config)


def check_metadata(folder: Path) -> None:
    """Refuse metadata that cannot be read; without TensorFlow, and a file that is not there is fine.

    Args:
        folder: of the runs of a pipeline.

    Raises:
        BrokenInput: the file is damaged; the message names it and the command that sets it aside.
    """
    path = folder / METADATA
    if not path.exists():
        return
    try:
        # For writing: what a killed process left half-written is rolled back.
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True)) as database:
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
            database.execute("SELECT schema_version FROM MLMDEnv").fetchone()
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_READONLY", "SQLITE_CANTOPEN")):
            return  # another run writes it now, or nobody may: who reads it says so
        found = str(error)
    if found != "ok":
        raise BrokenInput(
            f"{path}: the metadata of the runs are damaged ({found}); expected an SQLite file of ML Metadata; "
            f"`ingraph runs repair {folder.name}` sets it aside and begins a new one with what the run folders tell"
        )


def close_abandoned_executions(folder: Path) -> int:
    """Note that executions which still count as running have failed; nothing may run in this folder now.

    Returns:
        how many there were.
    """
    if not (folder / METADATA).exists():
        return 0
    # By SQL: ML Metadata has no filter, and a folder may have seen thousands of runs.
    with closing(sqlite3.connect(folder / METADATA)) as database:
        rows = database.execute("SELECT id FROM Execution WHERE last_known_state = ?", [_RUNNING]).fetchall()
    if not rows:
        return 0
    store = open_metadata_store(str(folder / METADATA), writable=True)
    abandoned = store.get_executions_by_id([id_ for (id_,) in rows])
    for execution in abandoned:
        execution.last_known_state = execution.FAILED
    store.put_executions(abandoned)
    return len(abandoned)


def begin_metadata(folder: Path) -> None:
    """Make the store of a folder that has none, and may have had one: steps are numbered on from what they left there.

    Steps write to folders of their numbers: beginning with 1 again, they would mix their files with older ones.
    """
    if (folder / METADATA).exists():
        return
    largest = max((int(path.name) for path in folder.glob("artifacts/*/**/[0-9]*") if path.name.isdecimal()), default=0)
    if not largest:
        return
    open_metadata_store(str(folder / METADATA), writable=True)
    with closing(sqlite3.connect(folder / METADATA)) as database, database:
        database.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('Execution', ?)", [largest])


_VERSION = "published_version"


def repair_metadata(folder: Path) -> tuple[Path, list[str]]:
    """Set a damaged store aside, and begin another one with the runs of which there are records.

    Args:
        folder: of the runs of a pipeline; nothing may run in it.

    Returns:
        the damaged file's new name, and the ids of the runs that are known again, the oldest first. What their steps
        made is not: the next run does all of them.
    """
    from ml_metadata.proto import metadata_store_pb2

    aside = folder / f"{METADATA}.damaged-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    (folder / METADATA).rename(aside)
    with suppress(FileNotFoundError):
        (folder / f"{METADATA}-journal").rename(aside.with_name(f"{aside.name}-journal"))
    begin_metadata(folder)
    store = open_metadata_store(str(folder / METADATA), writable=True)
    type_id = store.put_context_type(metadata_store_pb2.ContextType(name=RUN))
    run_ids = sorted(path.stem for path in (folder / "reports").glob("*.json"))
    contexts = []
    for run_id in run_ids:
        context = metadata_store_pb2.Context(type_id=type_id, name=run_id)
        context.custom_properties[_VERSION].string_value = _version_of(folder, run_id)
        contexts.append(context)
    store.put_contexts(contexts)
    return aside, run_ids


def _version_of(folder: Path, run_id: str) -> str:
    """The version that a run has published, as its provenance says; "" where there is none any more."""
    from serving.model_store import ModelStoreError, list_versions

    models = read_run_record(folder, run_id).config.get("models")
    # The folder is WORKDIR/runs/NAME, whatever `runs` is called.
    for base_path in (f"{models}/{folder.name}", str(folder.parent.parent / str(models) / folder.name)):
        with suppress(ModelStoreError, OSError):
            for version in list_versions(base_path):
                if version.provenance.get("run_id") == run_id:
                    return str(version.number)
    return ""


# Where two components call an output the same.
_ROLES = {
    ("Baseline", "model"): "baseline_model",
    ("Evaluator", "blessing"): "model_blessing",
    ("ServingCheck", "blessing"): "infra_blessing",
    ("ReplayGate", "blessing"): "replay_blessing",
    ("SpanExampleGen", "examples"): "span_examples",
    ("SpanStatisticsGen", "statistics"): "span_statistics",
    ("DistributionValidator", "anomalies"): "span_anomalies",
}


def artifact_role(step: str, output: str) -> str:
    """The role of an output of a step, see components.run_report.finished_run."""
    return _ROLES.get((step, output), output)


def report_path(folder: Path, run_id: str) -> Path:
    """Where the report of a run lies, or would.

    Args:
        folder: of the runs of a pipeline.
        run_id: what the run is called.
    """
    return folder / "reports" / f"{run_id}.html"


# What the ids of `ingraph tune` begin with, which makes no model.
TUNING = "tune-"


def run_ids(folder: Path) -> list[str]:
    """The ids of the runs in the folder of a pipeline that were to make a model, the newest first.

    Raises:
        BrokenInput: the metadata are damaged.
    """
    check_metadata(folder)
    contexts = open_metadata_store(str(folder / METADATA)).get_contexts_by_type(RUN)
    newest_first = sorted(contexts, key=lambda context: context.id, reverse=True)
    return [context.name for context in newest_first if not context.name.startswith(TUNING)]


def pipeline_folders(runs: Path) -> list[Path]:
    """The folders of pipelines that have run."""
    return sorted(metadata.parent for metadata in runs.glob("*/metadata.sqlite"))


def find_run(runs: Path, wanted: str | None) -> tuple[Path, str]:
    """The folder of a pipeline, and the id of a run in it.

    Args:
        runs: the folder that holds a folder for each pipeline.
        wanted: the name of a pipeline (its latest run), the id of a run or its beginning, or NAME/ID; None for the
            latest run of all.

    Raises:
        BrokenInput: no run is meant, or several are.
    """
    known = [(folder, run_id) for folder in pipeline_folders(runs) for run_id in run_ids(folder)]
    if not known:
        raise BrokenInput(f"{runs}: no pipeline has run here; start one with `ingraph run CONFIG`, or set --workdir")
    if wanted is None:
        return max(known, key=lambda run: run[1])
    name, _, beginning = wanted.rpartition("/")
    of_name = [run for run in known if run[0].name == wanted]
    if of_name:
        return of_name[0]
    found = [run for run in known if run[1].startswith(beginning) and name in ("", run[0].name)]
    if len(found) == 1:
        return found[0]
    shown = ", ".join(f"{folder.name}/{run_id}" for folder, run_id in (found or known)[:8])
    problem = "several runs begin like that" if found else "there is no such pipeline or run"
    raise BrokenInput(f"{wanted}: {problem}; expected one of {shown}")


@dataclass(frozen=True)
class RunRecord:
    """Written when a run begins, completed when it ends.

    Attributes:
        config: the validated config, as JSON.
        steps: each step of the pipeline, in order, and the steps whose outputs it takes.
        exit_status: see pipeline/exit_status.py; None of a run that is under way, or was killed.
        ended: why the run ended early, as the screen said; "" where it did not.
        metrics: of the whole eval split, so that a list of runs need not load TFMA.
        data_spans: the spans that the data are of, the oldest first.
        fingerprint: of what decides how the run ends, see pipeline.fingerprints; "" where it was not looked at.
        sample: what the published model answered, see pipeline.screen.SamplePrediction; {} where it was not asked.
        repeats: the id of the run that this one found nothing changed since; "" of all others.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    steps: Mapping[str, list[str]] = field(default_factory=dict)
    exit_status: int | None = None
    ended: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    data_spans: Sequence[str] = ()
    fingerprint: str = ""
    sample: Mapping[str, Any] = field(default_factory=dict)
    repeats: str = ""


def write_run_record(folder: Path, run_id: str, record: RunRecord) -> None:
    """Write the record of a run.

    Args:
        folder: of the runs of a pipeline.
        run_id: what the run is called.
        record: what to keep.
    """
    path = _path(folder, run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(asdict(record), option=orjson.OPT_INDENT_2))


def read_run_record(folder: Path, run_id: str) -> RunRecord:
    """The record of a run, an empty one where there is none."""
    path = _path(folder, run_id)
    return RunRecord(**orjson.loads(path.read_bytes())) if path.exists() else RunRecord()


def published_by(folder: Path, fingerprint: str) -> str:
    """The id of the newest run of a fingerprint that published a model; "" where there is none."""
    for path in sorted((folder / "reports").glob("*.json"), reverse=True):
        record = read_run_record(folder, path.stem)
        if record.fingerprint == fingerprint and record.exit_status == ExitStatus.PUBLISHED and not record.repeats:
            return path.stem
    return ""


def _path(folder: Path, run_id: str) -> Path:
    return folder / "reports" / f"{run_id}.json"


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
    "replay_blessing",
    "pushed_model",
)
# By the name of ML Metadata's Execution.State.
_STATES: dict[str, StepState] = {"COMPLETE": "done", "CACHED": "unchanged"}


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
        if _state(execution) in _STATES:
            for key, id_ in outputs.items():
                role = artifact_role(name, key)
                if role in _KNOWN_ROLES:
                    artifacts[role] = _artifact(store, id_)
    return RecordedRun(tuple(steps), artifacts, base_path)


def repeat_run(store: MetadataStore, earlier: str, run_id: str, reason: str) -> None:
    """Record a run whose steps all take the outputs of an earlier one, as TFX records steps that it finds in its cache.

    Args:
        store: ML Metadata, for writing.
        earlier: the id of a run that published a model.
        run_id: what the new one is called.
        reason: what the new run says of its published model.
    """
    from ml_metadata.proto import metadata_store_pb2

    context = store.get_context_by_type_and_name(RUN, earlier)
    new_context = metadata_store_pb2.Context(type_id=context.type_id, name=run_id)
    new_context.id = store.put_contexts([new_context])[0]
    for before in sorted(store.get_executions_by_context(context.id), key=lambda execution: execution.id):
        execution = metadata_store_pb2.Execution(type_id=before.type_id, last_known_state=before.CACHED)
        execution.properties.MergeFrom(before.properties)
        execution.custom_properties.MergeFrom(before.custom_properties)
        made = []
        for event in store.get_events_by_execution_ids([before.id]):
            (artifact,) = store.get_artifacts_by_id([event.artifact_id])
            if _is_output(event) and artifact.type == "PushedModel":
                artifact.ClearField("id")
                artifact.name = f"{run_id}:pushed_model"
                artifact.custom_properties["reason"].string_value = reason
            made.append((artifact, metadata_store_pb2.Event(type=event.type, path=event.path)))
        contexts = [one for one in store.get_contexts_by_execution(before.id) if one.type in _CONTEXTS_OF_A_STEP]
        store.put_execution(execution, made, [*contexts, new_context])


_CONTEXTS_OF_A_STEP = ("pipeline", "node")  # TFX's names


def _step(name: str, execution: metadata_store_pb2.Execution, upstream: tuple[str, ...]) -> Step:
    state = _STATES.get(_state(execution), "failed")
    seconds = (execution.last_update_time_since_epoch - execution.create_time_since_epoch) / 1000
    return Step(name, state, seconds if state == "done" else None, upstream)


def _state(execution: metadata_store_pb2.Execution) -> str:
    return str(execution.State.Name(execution.last_known_state))


def _artifact(store: MetadataStore, id_: int) -> RunArtifact:
    (artifact,) = store.get_artifacts_by_id([id_])
    return RunArtifact(artifact.uri, _values(artifact.properties) | _values(artifact.custom_properties))


def _is_output(event: metadata_store_pb2.Event) -> bool:
    return bool(event.type == event.OUTPUT)


def _values(properties: Mapping[str, metadata_store_pb2.Value]) -> dict[str, Any]:
    return {name: getattr(value, kind) for name, value in properties.items() if (kind := value.WhichOneof("value"))}


@dataclass(frozen=True)
class RunOutcome:
    """The verdicts and results of one run.

    Attributes:
        warnings: what was left out of the data, and what DataGate let pass, in words.
        metrics: of the whole eval split, by name.
        blessed: the Evaluator's verdict; None where the run did not come that far. Likewise the next two.
        evaluation_reason: why the Evaluator did not bless.
        infra_blessed: ServingCheck's.
        infra_reason: why ServingCheck did not bless.
        infra_remark: what it says besides its verdict.
        replay_blessed: ReplayGate's verdict; None also where the config has none. Likewise its reason and remark.
        pushed: whether a version of this run is published.
        pushed_version: its number.
        pushed_destination: where it lies.
        pushed_reason: what ServingPusher says of it.
    """

    warnings: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    blessed: bool | None = None
    evaluation_reason: str = ""
    infra_blessed: bool | None = None
    infra_reason: str = ""
    infra_remark: str = ""
    replay_blessed: bool | None = None
    replay_reason: str = ""
    replay_remark: str = ""
    pushed: bool | None = None
    pushed_version: str = ""
    pushed_destination: str = ""
    pushed_reason: str = ""


def read_outcome(metadata: str, run_id: str, metrics: Mapping[str, float] | None = None) -> RunOutcome:
    """Read the outcome of a run.

    Args:
        metadata: the SQLite file.
        run_id: what the run was called.
        metrics: where they are known, so that TFMA is not loaded for them.
    """
    artifacts = read_recorded_run(open_metadata_store(metadata), run_id).artifacts
    verdict, evaluation = artifacts.get("verdict"), artifacts.get("evaluation")
    examples = artifacts.get("examples")
    if metrics is None:
        metrics = _evaluated(evaluation.uri) if evaluation else {}
    return RunOutcome(
        warnings=(*(_left_out(examples.uri) if examples else ()), *(_warnings(verdict.uri) if verdict else ())),
        metrics=metrics,
        blessed=_flag(artifacts, "model_blessing", "blessed"),
        evaluation_reason=_text(artifacts, "model_blessing", "reason"),
        infra_blessed=_flag(artifacts, "infra_blessing", "blessed"),
        infra_reason=_text(artifacts, "infra_blessing", "reason"),
        infra_remark=_text(artifacts, "infra_blessing", "remark"),
        replay_blessed=_flag(artifacts, "replay_blessing", "blessed"),
        replay_reason=_text(artifacts, "replay_blessing", "reason"),
        replay_remark=_text(artifacts, "replay_blessing", "remark"),
        pushed=_flag(artifacts, "pushed_model", "pushed"),
        pushed_version=_text(artifacts, "pushed_model", "pushed_version"),
        pushed_destination=_text(artifacts, "pushed_model", "pushed_destination"),
        pushed_reason=_text(artifacts, "pushed_model", "reason"),
    )


def cached_nodes(metadata: str, run_id: str) -> frozenset[str]:
    """The ids of the nodes of a run whose earlier outputs were used."""
    steps = read_recorded_run(open_metadata_store(metadata), run_id).steps
    return frozenset(step.name for step in steps if step.state == "unchanged")


def _left_out(examples: str) -> tuple[str, ...]:
    from components.image_example_gen.file_formats import REPORT_FILE, kinds_left_out

    report = Path(examples, REPORT_FILE)
    kinds = kinds_left_out(json.loads(report.read_text(encoding="utf-8"))) if report.exists() else {}
    if not kinds:
        return ()
    counted = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
    return (f"{sum(kinds.values()):,} photos are left out: {counted}; {report} says which, and why",)


def _warnings(verdict: str) -> tuple[str, ...]:
    return tuple(json.loads(Path(verdict, VERDICT_FILE).read_text(encoding="utf-8"))["warnings"])


def _flag(artifacts: Mapping[str, RunArtifact], role: str, name: str) -> bool | None:
    return artifacts[role].flag(name) if role in artifacts else None


def _text(artifacts: Mapping[str, RunArtifact], role: str, name: str) -> str:
    return artifacts[role].text(name) if role in artifacts else ""


def _evaluated(evaluation: str) -> dict[str, float]:
    from components.evaluator.eval_config import overall_metrics  # TFMA takes seconds to load

    return overall_metrics(evaluation)


@dataclass(frozen=True)
class PastRun:
    """What became of a run.

    Attributes:
        name: of its pipeline.
        run_id: what it is called.
        verdict: `published`, `not published`, `stopped`, or one of _REFUSALS.
        reason: why, in words.
        version: the published version's number, "" where nothing was published.
        metrics: of the whole eval split.
        report: where the report lies, "" where it was not made.
        log: where the log lies, "" where there is none.
        steps: those that ran.
    """

    name: str
    run_id: str
    verdict: str
    reason: str
    version: str
    metrics: Mapping[str, float]
    report: str
    log: str
    steps: tuple[Step, ...]


def read_past_run(folder: Path, run_id: str) -> PastRun:
    """Read it from ML Metadata and the record of the run.

    Args:
        folder: of the runs of a pipeline.
        run_id: what the run is called.
    """
    store = open_metadata_store(str(folder / METADATA))
    recorded = read_recorded_run(store, run_id)
    context = store.get_context_by_type_and_name(RUN, run_id)
    rebuilt = context.custom_properties[_VERSION].string_value if context is not None else ""
    record = read_run_record(folder, run_id)
    verdict, reason = _verdict(recorded.artifacts, record)
    report, log = report_path(folder, record.repeats or run_id), folder / "logs" / f"{run_id}.log"
    pushed = recorded.artifacts.get("pushed_model")
    metrics = _metrics(recorded.artifacts, record)
    if metrics and not record.metrics:  # it was interrupted: the next look need not load TFMA for it
        with suppress(OSError):
            write_run_record(folder, run_id, replace(read_run_record(folder, run_id), metrics=metrics))
    return PastRun(
        name=folder.name,
        run_id=run_id,
        verdict=verdict,
        reason=reason,
        version=pushed.text("pushed_version") if pushed and pushed.flag("pushed") else rebuilt,
        metrics=metrics,
        report=str(report) if report.exists() else "",
        log=str(log) if log.exists() else "",
        steps=recorded.steps,
    )


_REFUSALS = {
    "model_blessing": "not good enough",
    "infra_blessing": "fails the serving check",
    "replay_blessing": "answers too differently",
}
# Of a run of which only the record is left.
_VERDICTS: dict[int | None, str] = {
    int(ExitStatus.PUBLISHED): "published",
    int(ExitStatus.NOT_BLESSED): _REFUSALS["model_blessing"],
    int(ExitStatus.SERVING_CHECK_FAILED): _REFUSALS["infra_blessing"],
    int(ExitStatus.ANSWERS_CHANGED): _REFUSALS["replay_blessing"],
    int(ExitStatus.NOT_PUBLISHED): "not published",
}


def _verdict(artifacts: Mapping[str, RunArtifact], record: RunRecord) -> tuple[str, str]:
    pushed = artifacts.get("pushed_model")
    if pushed is None:
        return _VERDICTS.get(record.exit_status, "stopped"), record.ended
    reason = pushed.text("reason")
    if pushed.flag("pushed"):
        return "published", reason
    for role, verdict in _REFUSALS.items():
        if role in artifacts and not artifacts[role].flag("blessed"):
            return verdict, artifacts[role].text("reason")
    return "not published", reason


def _metrics(artifacts: Mapping[str, RunArtifact], record: RunRecord) -> Mapping[str, float]:
    if record.metrics or "evaluation" not in artifacts:
        return record.metrics
    return _evaluated(artifacts["evaluation"].uri)
