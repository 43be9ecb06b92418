"""Reports of runs and comparisons of two, made from what the runs left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ml_metadata.metadata_store import MetadataStore
from tfx.dsl.io import fileio
from tfx.utils import io_utils, path_utils

from components.run_report.finished_run import FinishedRun, RunArtifact, ServedModel, Step
from components.run_report.pages import comparison_page, report_page
from components.run_report.statistics import LiveFigures
from pipeline.history import (
    METADATA,
    RecordedRun,
    RunRecord,
    open_metadata_store,
    read_recorded_run,
    read_run_record,
    report_path,
)
from pipeline.spans import DATA_SPANS
from serving.model_store import PROVENANCE_FILE, ModelStoreError, decode_json, served_version

_KILLED = "the run was interrupted, or is still under way; running the same config again goes on where it ended"


def read_finished_run(folder: Path, run_id: str) -> FinishedRun:
    """Put together what ML Metadata, the record of the run and the model base path know.

    Args:
        folder: of the runs of a pipeline.
        run_id: what the run is called.
    """
    store = open_metadata_store(str(folder / METADATA))
    recorded, record = read_recorded_run(store, run_id), read_run_record(folder, run_id)
    steps = planned_steps(recorded.steps, record)
    stopped = any(step.state in ("failed", "not reached") for step in steps)
    return FinishedRun(
        name=folder.name,
        run_id=run_id,
        config=record.config,
        artifacts=recorded.artifacts,
        steps=steps,
        ended=record.ended or (_KILLED if stopped else ""),
        served=_served(recorded.base_path),
        data_spans=tuple(record.data_spans),
        served_statistics=_served_statistics(store, recorded),
        live=LiveFigures.kept(folder),
    )


def planned_steps(steps: Sequence[Step], record: RunRecord) -> tuple[Step, ...]:
    """The steps that ran and those that were not reached, in the order of the pipeline.

    A step may wait for another one without taking its outputs, which only the record knows.
    """
    if not record.steps:
        return tuple(steps)
    ran = {step.name: step for step in steps}
    return tuple(
        replace(ran.get(name, Step(name, "not reached", None)), upstream=tuple(upstream))
        for name, upstream in record.steps.items()
    )


def _served(base_path: str) -> ServedModel | None:
    try:
        version = served_version(base_path) if base_path else None
    except ModelStoreError:  # why it cannot be read is what the run ended with
        return None
    if version is None:
        return None
    return ServedModel(
        version=version.number,
        path=version.path,
        published_at=str(version.provenance.get("published_at", "")),
        run_id=str(version.provenance.get("run_id", "")),
        data_fingerprint=str(version.provenance.get("data_fingerprint", "")),
        code_fingerprint=str(version.provenance.get("code_fingerprint", "")),
        data_spans=tuple(version.provenance.get(DATA_SPANS, ())),
    )


def _served_statistics(store: MetadataStore, recorded: RecordedRun) -> RunArtifact | None:
    """The statistics of the run that made the baseline, where they are in the same store."""
    baseline = recorded.artifacts.get("baseline_model")
    if baseline is None or not baseline.flag("has_model"):
        return None
    path = f"{path_utils.serving_model_path(baseline.uri)}/{PROVENANCE_FILE}"
    provenance = decode_json(io_utils.read_bytes_file(path)) if fileio.exists(path) else {}
    return read_recorded_run(store, str(provenance.get("run_id", ""))).artifacts.get("statistics")


def write_report(folder: Path, run_id: str) -> Path:
    """Make the report of a run anew.

    Args:
        folder: of the runs of a pipeline.
        run_id: what the run is called.
    """
    path = report_path(folder, run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report_page(read_finished_run(folder, run_id)), encoding="utf-8")
    return path


def write_comparison(before: tuple[Path, str], after: tuple[Path, str]) -> Path:
    """Make the page that compares two runs, beside the report of the second.

    Args:
        before: the folder of a pipeline, and the id of a run in it.
        after: likewise; the differences are those from `before` to `after`.
    """
    (_, first_id), (folder, second_id) = before, after
    path = folder / "reports" / f"{first_id}_{second_id}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    page = comparison_page(read_finished_run(*before), read_finished_run(*after))
    path.write_text(page, encoding="utf-8")
    return path
