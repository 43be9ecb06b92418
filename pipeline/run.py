"""Run a config from raw data to a published model."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import BrokenInput, NoNewData, NotPublished, RunStopped
from components.serving_check.process_ahead import end_ahead, start_ahead
from pipeline.ask_once import ask_once
from pipeline.config import RunConfig
from pipeline.exit_status import ExitStatus
from pipeline.leave_report import leave_report
from pipeline.model_base_path import model_base_path
from pipeline.onednn_for_photos import onednn_for_photos
from pipeline.prepared_run import PreparedRun
from pipeline.quiet_output import quiet_output
from pipeline.raw_data import raw_data
from pipeline.remove_old_windows import remove_old_windows
from pipeline.run_lock import run_lock
from pipeline.run_record import RunRecord, write_run_record
from pipeline.run_screen import RunScreen
from pipeline.runners.require_job_service import require_job_service
from pipeline.schema_file import schema_file
from pipeline.span_files import write_span_files
from pipeline.span_window import SpanWindow, span_window
from pipeline.status_of_error import status_of_error
from serving.model_store import ModelStoreError, list_versions
from serving.uncollected_imports import uncollected_imports
from trainers.training_error import TrainingError
from transform.preprocessing_error import PreprocessingError

if TYPE_CHECKING:
    from tfx import v1 as tfx


Goal = Callable[[PreparedRun], ExitStatus]


def run(
    config: RunConfig, workdir: str, only_new_data: bool = False, goal: Goal | None = None, prefix: str = ""
) -> ExitStatus:
    """Run the pipeline in this process; say on the screen how it goes, and at the end why it went so.

    Args:
        config: what to run.
        workdir: what relative `runs` and `models` of the config are relative to.
        only_new_data: do not run on spans that the last published version learned from.
        goal: what to do where the data are there; by default, publish a model.
        prefix: what the run's id begins with, see pipeline/run_ids.py.
    """
    run_id = prefix + datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    folder = Path(workdir, config.runs, config.name).resolve()
    base_path = model_base_path(config, workdir)
    try:
        _make_folders(folder / "logs", base_path)
        with run_lock(folder):
            window = _window(config, base_path, only_new_data)
            return _run_to_the_end(config, window, base_path, folder, run_id, goal or _publish)
    except RunStopped as stopped:
        RunScreen.without_log().stopped(str(stopped))
        return _status(stopped)


def _window(config: RunConfig, base_path: str, only_new_data: bool) -> SpanWindow | None:
    if config.data.spans is None:
        return None
    try:
        versions = list_versions(base_path)
    except ModelStoreError as error:
        raise NotPublished(str(error)) from error
    window = span_window(config.data, versions)
    if only_new_data and window.last_published:
        version = window.last_published
        withdrawn = f", which is withdrawn; `ingraph models restore {base_path}` serves it again" * version.withdrawn
        raise NoNewData(f"no new data: version {version.number} learned from {window}{withdrawn}")
    return window


def _run_to_the_end(
    config: RunConfig, window: SpanWindow | None, base_path: str, folder: Path, run_id: str, goal: Goal
) -> ExitStatus:
    log = folder / "logs" / f"{run_id}.log"
    with quiet_output(log) as stream:
        screen = RunScreen(stream, log)
        try:
            with onednn_for_photos(config.task):
                prepared = _prepared(config, window, base_path, folder, run_id, screen)
            status, ended = goal(prepared), ""
        except KeyboardInterrupt:
            screen.stopped("interrupted; run the same command again to go on, finished steps are not repeated")
            return ExitStatus.UNEXPECTED
        except Exception as error:  # the last place that can turn a trace into a sentence
            with suppress(OSError):  # the disk with the log may be what is full
                traceback.print_exc()
            status, ended = _status(error), _reason(error)
            screen.stopped(ended)
        leave_report(folder, run_id, status, ended, screen)
    return status


def _prepared(
    config: RunConfig, window: SpanWindow | None, base_path: str, folder: Path, run_id: str, screen: RunScreen
) -> PreparedRun:
    screen.begin(config.name, run_id)
    described = config
    spans = write_span_files(window, config, folder / "data") if window else None
    if window and spans:
        remove_old_windows(folder / "data", in_use=spans.folder)
        screen.data(str(window))
        config = spans.read_by(config)
    data = raw_data(config, folder / "data")
    screen.data(data.findings)

    beam_arguments = config.beam.pipeline_args(config.cluster.image)
    require_job_service(beam_arguments)

    screen.loading()
    with uncollected_imports():
        from pipeline.dag import Locations
        from pipeline.runners.hasten_beam import hasten_beam

    hasten_beam()
    metadata = str(folder / "metadata.sqlite")
    locations = Locations(
        data=data.path,
        data_fingerprint=data.fingerprint,
        schema_file=_schema_copy(schema_file(config), folder),
        artifacts=str(folder / "artifacts"),
        metadata=metadata,
        base_path=base_path,
        spans=spans,
    )
    return PreparedRun(config, described, locations, beam_arguments, metadata, folder, run_id, screen)


def _publish(prepared: PreparedRun) -> ExitStatus:
    with uncollected_imports():
        from pipeline.dag import create_pipeline
        from pipeline.run_outcome import cached_nodes, read_outcome
        from pipeline.runners.local import LocalRunner

    config, locations, screen = prepared.config, prepared.locations, prepared.screen
    metadata, folder, run_id = prepared.metadata, prepared.folder, prepared.run_id
    started = time.monotonic()
    pipeline = create_pipeline(config, locations, run_id, prepared.beam_arguments)
    names = list(locations.spans.fingerprints) if locations.spans else []
    described = prepared.described.model_dump(mode="json")
    write_run_record(folder, run_id, RunRecord(described, _steps(pipeline), data_spans=names))

    def node_ended(node: str, seconds: float) -> None:
        cached = node in cached_nodes(metadata, run_id)
        screen.node_ended(node, seconds, cached)
        if node == "Trainer" and not cached:
            start_ahead()

    try:
        LocalRunner(run_id, screen.node_started, node_ended).run(pipeline)
    finally:
        end_ahead()
    outcome = read_outcome(metadata, run_id)
    screen.outcome(outcome, time.monotonic() - started)
    if outcome.pushed:
        ask_once(config, locations.base_path, locations.data, screen)
        return ExitStatus.PUBLISHED
    if not outcome.blessed:
        return ExitStatus.NOT_BLESSED
    return ExitStatus.NOT_PUBLISHED if outcome.infra_blessed else ExitStatus.SERVING_CHECK_FAILED


def _steps(pipeline: tfx.dsl.Pipeline) -> dict[str, list[str]]:
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
        content = Path(schema_file).read_bytes()
    except OSError as error:
        raise BrokenInput(f"{schema_file}: cannot read the schema (data.schema_file): {error.strerror}") from error
    copy = folder / "schemas" / hashlib.sha256(content).hexdigest()[:16] / "schema.pbtxt"
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
    return str(copy)


def _status(error: BaseException) -> ExitStatus:
    status = status_of_error(error)
    return ExitStatus.NOT_PUBLISHED if status is ExitStatus.UNEXPECTED and _disk_is_full(error) else status


def _reason(error: BaseException) -> str:
    if isinstance(error, RunStopped | PreprocessingError | TrainingError):
        return str(error)
    if _disk_is_full(error):
        return "the disk is full; free some space and run the same command again, finished steps are not repeated"
    return f"unexpected: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


def _disk_is_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # Beam, TensorFlow and SQLite leave only the text.
    if os.strerror(errno.ENOSPC) in str(error) or "database or disk is full" in str(error):
        return True
    return error.__cause__ is not None and _disk_is_full(error.__cause__)
