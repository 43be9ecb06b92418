"""The comparison of two runs as a file."""

from __future__ import annotations

from pathlib import Path

from components.run_report.comparison_page import comparison_page
from pipeline.read_finished_run import read_finished_run


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
