"""A past run in short."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.run_report.run_artifact import RunArtifact
from components.run_report.step import Step
from pipeline.metadata_store import open_metadata_store
from pipeline.recorded_run import read_recorded_run
from pipeline.report_path import report_path
from pipeline.run_record import RunRecord, read_run_record


@dataclass(frozen=True)
class PastRun:
    """What became of a run.

    Attributes:
        name: of its pipeline.
        run_id: what it is called.
        verdict: `published`, `not good enough`, `fails the serving check`, `not published` or `stopped`.
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
    recorded = read_recorded_run(open_metadata_store(str(folder / "metadata.sqlite")), run_id)
    record = read_run_record(folder, run_id)
    verdict, reason = _verdict(recorded.artifacts, record)
    report, log = report_path(folder, run_id), folder / "logs" / f"{run_id}.log"
    pushed = recorded.artifacts.get("pushed_model")
    return PastRun(
        name=folder.name,
        run_id=run_id,
        verdict=verdict,
        reason=reason,
        version=pushed.text("pushed_version") if pushed and pushed.flag("pushed") else "",
        metrics=_metrics(recorded.artifacts, record),
        report=str(report) if report.exists() else "",
        log=str(log) if log.exists() else "",
        steps=recorded.steps,
    )


def _verdict(artifacts: Mapping[str, RunArtifact], record: RunRecord) -> tuple[str, str]:
    pushed = artifacts.get("pushed_model")
    if pushed is None:
        return "stopped", record.ended
    reason = pushed.text("reason")
    if pushed.flag("pushed"):
        return "published", reason
    for role, verdict in (("model_blessing", "not good enough"), ("infra_blessing", "fails the serving check")):
        if role in artifacts and not artifacts[role].flag("blessed"):
            return verdict, artifacts[role].text("reason")
    return "not published", reason


def _metrics(artifacts: Mapping[str, RunArtifact], record: RunRecord) -> Mapping[str, float]:
    if record.metrics or "evaluation" not in artifacts:
        return record.metrics
    from components.evaluator.overall_metrics import overall_metrics  # TFMA takes seconds to load

    return overall_metrics(artifacts["evaluation"].uri)
