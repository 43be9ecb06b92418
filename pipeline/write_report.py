"""The report of a run as a file."""

from __future__ import annotations

from pathlib import Path

from components.run_report.report_page import report_page
from pipeline.read_finished_run import read_finished_run
from pipeline.report_path import report_path


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
