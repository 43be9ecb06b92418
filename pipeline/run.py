"""A run of a config, from raw data to a published model: `ingraph run`, `ingraph retrain` and `ingraph tune`."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from components.errors import BrokenInput, NoNewData, NotPublished, RunStopped, RunUnderWay
from components.serving_check.model_process import end_ahead, start_ahead
from pipeline.exit_status import ExitStatus, run_reason, run_status
from pipeline.fingerprints import run_fingerprint
from pipeline.history import (
    METADATA,
    TUNING,
    RunOutcome,
    RunRecord,
    begin_metadata,
    check_metadata,
    close_abandoned_executions,
    open_metadata_store,
    published_by,
    read_outcome,
    read_recorded_run,
    read_run_record,
    repeat_run,
    report_path,
    write_run_record,
)
from pipeline.options import RunConfig
from pipeline.runners.beam_engine import start_engine
from pipeline.screen import RunScreen, SamplePrediction, sample_prediction
from pipeline.spans import SpanFiles, SpanWindow, remove_old_windows, span_window, write_span_files
from pipeline.tasks import TASKS, convert_data, raw_data, schema_file
from serving.loading import garbage_collection_paused, onednn, quiet_output
from serving.model_store import (
    KEY_VARIABLE,
    PROVENANCE_FILE,
    ModelStoreError,
    decode_json,
    fingerprints,
    list_versions,
    served_version,
    signing_key_of_environment,
)

if TYPE_CHECKING:
    from tfx.orchestration.pipeline import Pipeline

    from pipeline.dag import Locations
    from pipeline.data import RawData


def model_base_path(config: RunConfig, workdir: str) -> str:
    """The model base path of a config; `workdir` is what a relative `models` is relative to."""
    models = config.models if "://" in config.models else str(Path(workdir, config.models).resolve())
    return f"{models}/{config.name}"


def runs_folder(config: RunConfig, workdir: str) -> Path:
    """The folder of the runs of a config; `workdir` is what a relative `runs` is relative to."""
    return Path(workdir, config.runs, config.name).resolve()


LOCK_FILE = "lock"


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Keep other processes from running the same pipeline.

    The operating system takes the lock from a process that ends, however it ends: nothing is left to clean up. The
    file stays, and says who had the lock last.

    Args:
        folder: of the runs of the pipeline.

    Raises:
        RunUnderWay: another process holds the lock; the message says which.
    """
    path = folder / LOCK_FILE
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise RunUnderWay(f"{folder}: {holder} runs this pipeline; wait until it has ended") from None
        file.truncate(0)
        file.write(f"process {os.getpid()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC,")
        file.flush()
        yield


@dataclass(frozen=True)
class PreparedRun:
    """What a pipeline is made from.

    Attributes:
        config: of the run, its data those that ExampleGen reads.
        described: the config as its file has it.
        locations: where the run reads and writes.
        beam_arguments: Beam's runner and its options.
        metadata: the SQLite file of ML Metadata.
        folder: of the runs of this pipeline.
        run_id: what the run is called.
        screen: what a person sees.
        fingerprint: of all that decides how the run ends; "" where it was not looked at.
    """

    config: RunConfig
    described: RunConfig
    locations: Locations
    beam_arguments: list[str]
    metadata: str
    folder: Path
    run_id: str
    screen: RunScreen
    fingerprint: str


Goal = Callable[[PreparedRun], ExitStatus]


def run(
    config: RunConfig,
    workdir: str,
    only_new_data: bool = False,
    goal: Goal | None = None,
    prefix: str = "",
    convert: bool = False,
) -> ExitStatus:
    """Run the pipeline in this process; say on the screen how it goes, and at the end why it went so.

    Args:
        config: what to run.
        workdir: what relative `runs` and `models` of the config are relative to.
        only_new_data: do not run on spans that the last published version learned from.
        goal: what to do where the data are there; by default, publish a model.
        prefix: what the run's id begins with, see pipeline/history.py.
        convert: make files that can be read of those that cannot before, see pipeline.tasks.convert_data.
    """
    run_id = prefix + datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    folder, base_path = runs_folder(config, workdir), model_base_path(config, workdir)
    try:
        _make_folders(folder / "logs", base_path)
        with run_lock(folder), _signing_key(config), interruptible() as interrupted:
            check_metadata(folder)
            window = _window(config, base_path, only_new_data)
            return _run_to_the_end(config, window, base_path, folder, run_id, goal or _publish, interrupted, convert)
    except RunStopped as stopped:
        RunScreen.without_log().stopped(str(stopped))
        return run_status(stopped)


@contextmanager
def _signing_key(config: RunConfig) -> Iterator[None]:
    """Within it ServingPusher finds the key in the environment, where no metadata and no record of the run have it.

    Raises:
        BrokenInput: the key cannot be used; better to learn now than after the training.
    """
    before = os.environ.get(KEY_VARIABLE)
    if config.push.signing_key:
        os.environ[KEY_VARIABLE] = config.push.signing_key
    try:
        try:
            signing_key_of_environment()
        except ModelStoreError as error:
            raise BrokenInput(f"{'push.signing_key' if config.push.signing_key else KEY_VARIABLE}: {error}") from None
        yield
    finally:
        os.environ.pop(KEY_VARIABLE, None)
        if before is not None:
            os.environ[KEY_VARIABLE] = before


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """SIGTERM, which schedulers and containers send, ends a run as Ctrl-C does; only where signals can be had.

    Yields:
        whether one of them has come: what C++ makes of a KeyboardInterrupt is some other error.
    """
    came: list[int] = []

    def interrupt(number: int, frame: object) -> NoReturn:
        came.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _window(config: RunConfig, base_path: str, only_new_data: bool) -> SpanWindow | None:
    if config.data.spans is None:
        return None
    try:
        versions = list_versions(base_path)
    except ModelStoreError as error:
        raise NotPublished(str(error)) from error
    window = span_window(TASKS[config.task].spans, config.data, versions)
    if only_new_data and window.last_published:
        version = window.last_published
        withdrawn = f", which is withdrawn; `ingraph models restore {base_path}` serves it again" * version.withdrawn
        raise NoNewData(f"no new data: version {version.number} learned from {window}{withdrawn}")
    return window


def _run_to_the_end(
    config: RunConfig,
    window: SpanWindow | None,
    base_path: str,
    folder: Path,
    run_id: str,
    goal: Goal,
    interrupted: Callable[[], bool],
    convert: bool,
) -> ExitStatus:
    log = folder / "logs" / f"{run_id}.log"
    with quiet_output(log) as stream:
        screen = RunScreen(stream, log)
        try:
            screen.begin(config.name, run_id)
            found = _find_data(config, window, folder, screen, convert)
            if goal is _publish and _repeats(found, base_path, folder, run_id, screen):
                return ExitStatus.PUBLISHED
            with onednn(TASKS[config.task].uses_onednn):
                prepared = _prepared(config, found, base_path, folder, run_id, screen)
            status, ended = goal(prepared), ""
        except (KeyboardInterrupt, Exception) as error:  # the last place that can turn a trace into a sentence
            if interrupted() or isinstance(error, KeyboardInterrupt):
                with suppress(Exception):  # what ran is closed by the next run, if not now
                    close_abandoned_executions(folder)
                screen.stopped("interrupted; run the same command again to go on, finished steps are not repeated")
                return ExitStatus.UNEXPECTED
            with suppress(OSError):  # the disk with the log may be what is full
                traceback.print_exc()
            status, ended = run_status(error), run_reason(error)
            screen.stopped(ended)
        _write_report(folder, run_id, status, ended, screen)
    return status


@dataclass(frozen=True)
class _FoundData:
    """The data of a run.

    Attributes:
        config: of the run, with what the data say of their columns.
        data: found and checked.
        spans: what the data are of, where they came in spans.
        fingerprint: of all that decides how the run ends; "" where that cannot be told at a glance.
    """

    config: RunConfig
    data: RawData
    spans: SpanFiles | None
    fingerprint: str


def _find_data(
    config: RunConfig, window: SpanWindow | None, folder: Path, screen: RunScreen, convert: bool
) -> _FoundData:
    spans = write_span_files(TASKS[config.task].spans, window, config, folder / "data") if window else None
    if window and spans:
        remove_old_windows(folder / "data", in_use=spans.folder)
        screen.data(str(window))
        config = spans.read_by(config)
    if convert:
        for sentence in convert_data(config):
            screen.data(sentence)
    data = raw_data(config)
    screen.data(data.findings)
    config = config.with_kinds(data.kinds)
    for warning in data.warnings:
        screen.warning(warning)
    return _FoundData(config, data, spans, "" if spans else _fingerprint(config, data))


def _fingerprint(config: RunConfig, data: RawData) -> str:
    """The fingerprint of a run; "" where a file lies in an object store, which would have to be asked."""
    named = [value for value in config.trainer.model_dump().values() if isinstance(value, str)]
    files = [*data.files, schema_file(config) or "", *(value for value in named if "/" in value)]
    if any("://" in file for file in files):
        return ""
    return run_fingerprint(
        [config.model_dump_json(), *map(str, (data.path, data.fingerprint, data.findings))], filter(None, files)
    )


_PROVENANCE = Path(PROVENANCE_FILE).name  # as the Trainer leaves it beside the export


def _repeats(found: _FoundData, base_path: str, folder: Path, run_id: str, screen: RunScreen) -> bool:
    """Whether nothing has changed since a run whose model is served; then it is recorded and shown once more.

    What a run would find out by running is not asked again: each of its steps would take the outputs of the earlier
    one. Without TFX and TensorFlow, whose import takes longer than all the rest.
    """
    started = time.monotonic()
    earlier = published_by(folder, found.fingerprint) if found.fingerprint and (folder / METADATA).exists() else ""
    if not earlier:
        return False
    store = open_metadata_store(str(folder / METADATA), writable=True)
    recorded, record = read_recorded_run(store, earlier), read_run_record(folder, earlier)
    if len(recorded.steps) < len(record.steps) or not record.sample:
        return False
    if not all(Path(artifact.uri).is_dir() for role, artifact in recorded.artifacts.items() if role != "pushed_model"):
        return False
    try:
        served, key = served_version(base_path), signing_key_of_environment()
    except ModelStoreError:  # the steps say so
        return False
    # What would be published is what is served, by the rule of ServingPusher.
    trained, pushed = Path(recorded.artifacts["model"].uri, _PROVENANCE), recorded.artifacts["pushed_model"]
    if served is None or served.path != pushed.text("pushed_destination") or not trained.exists():
        return False
    if fingerprints(served.provenance) != fingerprints(decode_json(trained.read_bytes())):
        return False
    if key is not None and served.provenance.get("signed_by") != key.fingerprint:
        return False
    repeat_run(store, earlier, run_id, f"already published as version {served.number}")
    write_run_record(folder, run_id, replace(record, repeats=earlier))
    screen.repeats(earlier)
    for step in recorded.steps:
        screen.node_ended(step.name, 0, cached=True)
    outcome = read_outcome(str(folder / METADATA), run_id, record.metrics)
    screen.outcome(outcome, time.monotonic() - started, wraps=not found.config.learns)
    screen.sample(found.config.name, base_path, SamplePrediction(**record.sample))
    screen.report(report_path(folder, earlier))
    return True


def _prepared(
    config: RunConfig, found: _FoundData, base_path: str, folder: Path, run_id: str, screen: RunScreen
) -> PreparedRun:
    described, config, data, spans = config, found.config, found.data, found.spans
    beam_arguments = start_engine(config.beam.pipeline_args(config.cluster.image))

    screen.loading()
    with garbage_collection_paused():
        from pipeline.dag import Locations
        from pipeline.runners.beam_speedups import apply_beam_speedups

    apply_beam_speedups()
    begin_metadata(folder)
    close_abandoned_executions(folder)
    metadata = str(folder / METADATA)
    locations = Locations(
        data=data.path,
        data_fingerprint=data.fingerprint,
        schema_file=_schema_copy(schema_file(config), folder),
        artifacts=str(folder / "artifacts"),
        metadata=metadata,
        base_path=base_path,
        spans=spans,
    )
    return PreparedRun(
        config, described, locations, beam_arguments, metadata, folder, run_id, screen, found.fingerprint
    )


def _run_pipeline(prepared: PreparedRun, published: bool = True) -> tuple[RunOutcome, RunRecord]:
    """Run all steps, and show how they ended; what is not to be published is shown as such."""
    with garbage_collection_paused():
        from pipeline.dag import create_pipeline
        from pipeline.history import cached_nodes
        from pipeline.runners.local import LocalRunner

    config, locations, screen = prepared.config, prepared.locations, prepared.screen
    metadata, folder, run_id = prepared.metadata, prepared.folder, prepared.run_id
    started = time.monotonic()
    pipeline = create_pipeline(config, locations, run_id, prepared.beam_arguments)
    names = list(locations.spans.fingerprints) if locations.spans else []
    described = prepared.described.model_dump(mode="json")
    record = RunRecord(described, _steps(pipeline), data_spans=names, fingerprint=prepared.fingerprint)
    write_run_record(folder, run_id, record)

    def node_started(node: str) -> None:
        screen.node_started(node)
        if node == "Trainer":  # ServingCheck's process imports TensorFlow meanwhile
            start_ahead()

    def node_ended(node: str, seconds: float) -> None:
        screen.node_ended(node, seconds, cached=node in cached_nodes(metadata, run_id))

    try:
        LocalRunner(run_id, node_started, node_ended).run(pipeline)
    finally:
        end_ahead()
    outcome = read_outcome(metadata, run_id)
    screen.outcome(outcome, time.monotonic() - started, wraps=not config.learns, published=published)
    return outcome, record


def _publish(prepared: PreparedRun) -> ExitStatus:
    outcome, record = _run_pipeline(prepared)
    config, locations, screen = prepared.config, prepared.locations, prepared.screen
    if outcome.pushed:
        sample = sample_prediction(config, locations.base_path, locations.data)
        write_run_record(prepared.folder, prepared.run_id, replace(record, sample=asdict(sample)))
        screen.sample(config.name, locations.base_path, sample)
        return ExitStatus.PUBLISHED
    if not outcome.blessed:
        return ExitStatus.NOT_BLESSED
    if not outcome.infra_blessed:
        return ExitStatus.SERVING_CHECK_FAILED
    return ExitStatus.ANSWERS_CHANGED if outcome.replay_blessed is False else ExitStatus.NOT_PUBLISHED


def _try_out(prepared: PreparedRun) -> ExitStatus:
    """Run all steps, and ask what the Trainer exported, published or not; of the gates the serving check's counts."""
    outcome, _ = _run_pipeline(prepared, published=False)
    if not outcome.infra_blessed:
        return ExitStatus.SERVING_CHECK_FAILED
    from tfx.utils.path_utils import serving_model_path

    recorded = read_recorded_run(open_metadata_store(prepared.metadata), prepared.run_id)
    with tempfile.TemporaryDirectory() as base_path:
        Path(base_path, "1").symlink_to(serving_model_path(recorded.artifacts["model"].uri))
        prepared.screen.answers(sample_prediction(prepared.config, base_path, prepared.locations.data))
    prepared.screen.tried_out(prepared.config.data.sample or 0)
    return ExitStatus.PUBLISHED


def _steps(pipeline: Pipeline) -> dict[str, list[str]]:
    """Each step and those that it waits for."""
    return {step.id: sorted(upstream.id for upstream in step.upstream_nodes) for step in pipeline.components}


def _make_folders(logs: Path, base_path: str) -> None:
    """Make the folders of a run; better to learn now than after the training that one cannot be written to."""
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BrokenInput(f"{logs}: the run's folder cannot be made: {error.strerror}; --workdir moves it") from error
    if "://" in base_path:
        return
    try:
        Path(base_path).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=base_path):
            pass
    except OSError as error:
        raise NotPublished(
            f"{base_path}: the model base path cannot be written to: {error.strerror}; "
            "`models` in the config (or --set models=DIR) moves it"
        ) from error


def _schema_copy(schema_file: str | None, folder: Path) -> str | None:
    """A copy named after its content: TFX's cache knows an imported schema only by its path."""
    if schema_file is None:
        return None
    try:
        if Path(schema_file).exists() and not Path(schema_file).is_file():
            raise BrokenInput(f"{schema_file}: no regular file; data.schema_file names the schema, a schema.pbtxt")
        content = Path(schema_file).read_bytes()
    except OSError as error:
        raise BrokenInput(f"{schema_file}: cannot read the schema (data.schema_file): {error.strerror}") from error
    copy = folder / "schemas" / hashlib.sha256(content).hexdigest()[:16] / "schema.pbtxt"
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
    return str(copy)


def _write_report(folder: Path, run_id: str, exit_status: ExitStatus, ended: str, screen: RunScreen) -> None:
    """Complete the record of a run that ended, write its report, and say where that lies.

    Without a record the run ended before its pipeline began, and there is nothing to report. A report that cannot be
    made does not change how the run ended.

    Args:
        folder: of the runs of a pipeline.
        run_id: what the run is called.
        exit_status: how it ended.
        ended: why it ended early; "" where it did not.
        screen: shows the path.
    """
    record = read_run_record(folder, run_id)
    if not record.steps:
        return
    try:
        from components.evaluator.eval_config import overall_metrics
        from pipeline.reports import read_finished_run, write_report

        record = replace(record, exit_status=exit_status, ended=ended)
        write_run_record(folder, run_id, record)
        evaluation = read_finished_run(folder, run_id).artifacts.get("evaluation")
        metrics = overall_metrics(evaluation.uri) if evaluation else {}
        write_run_record(folder, run_id, replace(record, metrics=metrics))
        screen.report(write_report(folder, run_id))
    except Exception as error:  # the run has ended, and how it did is what counts
        traceback.print_exc()
        screen.no_report(f"{type(error).__name__}: {error}")


# A quick run takes over what earlier ones left, of so many.
_KEPT_QUICK_RUNS = 20


def quick(config: RunConfig, workdir: str, convert: bool = False) -> ExitStatus:
    """`ingraph run` of few examples and epochs, in a folder of its own, that publishes nothing.

    What an earlier quick run did and nothing changed since is not done again.

    Args:
        config: as pipeline.config.quick_config makes it.
        workdir: what its relative `runs` and `models` are relative to.
        convert: see run.
    """
    folder = runs_folder(config, workdir)
    if len(list(folder.glob("logs/*.log"))) >= _KEPT_QUICK_RUNS:
        with suppress(RunUnderWay), run_lock(folder):
            for path in folder.iterdir():
                if path.name != LOCK_FILE:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
    # What is compared with a served model is so in earnest.
    shutil.rmtree(model_base_path(config, workdir), ignore_errors=True)
    return run(config, workdir, goal=_try_out, convert=convert)


def retrain(config: RunConfig, workdir: str) -> ExitStatus:
    """`ingraph run`, unless the last published version learned from the same spans.

    Args:
        config: what to run.
        workdir: what relative `runs` and `models` of the config are relative to.

    Raises:
        BrokenInput: the config's data do not come in spans.
    """
    if config.data.spans is None:
        raise BrokenInput(
            "data.spans is missing: what retrains learns from data that come in spans, "
            "`spans: {path: data/{YYYY}-{MM}-{DD}/*.csv, window: 30}`"
        )
    return run(config, workdir, only_new_data=True)


def tune(config: RunConfig, workdir: str) -> ExitStatus:
    """`ingraph run` up to the Tuner; shows the trials and the best values. A run that follows does not search again.

    Args:
        config: what to tune.
        workdir: what relative `runs` and `models` of the config are relative to.

    Raises:
        BrokenInput: the config says nothing about tuning.
    """
    if config.tuner is None:
        raise BrokenInput(
            "tuner is missing: it says which options of the trainer are searched for, "
            "`tuner: {space: {learning_rate: {min: 0.001, max: 0.1, sampling: log}}}`"
        )
    return run(config, workdir, goal=_search, prefix=TUNING)


def _search(prepared: PreparedRun) -> ExitStatus:
    with garbage_collection_paused():
        from components.tuner import read_trials
        from pipeline.dag import create_tuning_pipeline
        from pipeline.history import cached_nodes
        from pipeline.runners.local import LocalRunner
        from trainers.tuning import TENSORBOARD

    screen, run_id = prepared.screen, prepared.run_id
    started = time.monotonic()
    pipeline = create_tuning_pipeline(prepared.config, prepared.locations, prepared.beam_arguments)

    def node_ended(node: str, seconds: float) -> None:
        screen.node_ended(node, seconds, node in cached_nodes(prepared.metadata, run_id))

    LocalRunner(run_id, screen.node_started, node_ended).run(pipeline)
    results = read_recorded_run(open_metadata_store(prepared.metadata), run_id).artifacts["tuner_results"].uri
    screen.trials(read_trials(results), f"{results}/{TENSORBOARD}", time.monotonic() - started)
    return ExitStatus.PUBLISHED
