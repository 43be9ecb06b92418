"""Which run a person means."""

from __future__ import annotations

from pathlib import Path

from components.errors import BrokenInput
from pipeline.run_ids import run_ids


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
