"""Where the report of a run lies."""

from __future__ import annotations

from pathlib import Path


def report_path(folder: Path, run_id: str) -> Path:
    """Where the report of a run lies, or would.

    Args:
        folder: of the runs of a pipeline.
        run_id: what the run is called.
    """
    return folder / "reports" / f"{run_id}.html"
