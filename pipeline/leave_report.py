"""What a run leaves for people: its record and its report."""

from __future__ import annotations

import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.exit_status import ExitStatus
from pipeline.run_record import read_run_record, write_run_record
from pipeline.run_screen import RunScreen

if TYPE_CHECKING:
    from components.run_report.finished_run import FinishedRun


def leave_report(folder: Path, run_id: str, exit_status: ExitStatus, ended: str, screen: RunScreen) -> None:
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
        from pipeline.read_finished_run import read_finished_run
        from pipeline.write_report import write_report

        record = replace(record, exit_status=exit_status, ended=ended)
        write_run_record(folder, run_id, record)
        metrics = _metrics(read_finished_run(folder, run_id))
        write_run_record(folder, run_id, replace(record, metrics=metrics))
        screen.report(write_report(folder, run_id))
    except Exception as error:  # the run has ended, and how it did is what counts
        traceback.print_exc()
        screen.no_report(f"{type(error).__name__}: {error}")


def _metrics(run: FinishedRun) -> dict[str, float]:
    from components.evaluator.overall_metrics import overall_metrics

    return overall_metrics(run.artifacts["evaluation"].uri) if "evaluation" in run.artifacts else {}
