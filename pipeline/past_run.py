"""A past run in short."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.run_outcome import RunOutcome, read_outcome
from pipeline.run_record import RunRecord, read_run_record
from pipeline.write_report import report_path


@dataclass(frozen=True)
class PastRun:
    """What became of a run.

    Attributes:
        name: of its pipeline.
        run_id: what it is called.
        verdict: `published`, `not good enough`, `fails the serving check`, `not published` or `stopped`.
        reason: why, in words; "" where it needs none.
        version: the published version's number, "" where nothing was published.
        metrics: of the whole eval split.
        report: where the report lies, "" where it was not made.
        log: where the log lies, "" where there is none.
    """

    name: str
    run_id: str
    verdict: str
    reason: str
    version: str
    metrics: Mapping[str, float]
    report: str
    log: str


def read_past_run(folder: Path, run_id: str) -> PastRun:
    """Read it from ML Metadata, the artifacts and the record of the run.

    Args:
        folder: of the runs of a pipeline.
        run_id: what the run is called.
    """
    outcome = read_outcome(str(folder / "metadata.sqlite"), run_id)
    verdict, reason = _verdict(outcome, read_run_record(folder, run_id))
    report, log = report_path(folder, run_id), folder / "logs" / f"{run_id}.log"
    return PastRun(
        name=folder.name,
        run_id=run_id,
        verdict=verdict,
        reason=reason,
        version=outcome.pushed_version if outcome.pushed else "",
        metrics={name: value for name, value in outcome.metrics.items() if name != "example_count"},
        report=str(report) if report.exists() else "",
        log=str(log) if log.exists() else "",
    )


def _verdict(outcome: RunOutcome, record: RunRecord) -> tuple[str, str]:
    if outcome.pushed:
        return "published", outcome.pushed_reason
    if outcome.pushed is None:
        return "stopped", record.ended
    if outcome.blessed is False:
        return "not good enough", outcome.evaluation_reason
    if outcome.infra_blessed is False:
        return "fails the serving check", outcome.infra_reason
    return "not published", outcome.pushed_reason
