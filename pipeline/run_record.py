"""What ML Metadata does not keep of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson


@dataclass(frozen=True)
class RunRecord:
    """Written when a run begins, completed when it ends.

    Attributes:
        config: the validated config, as JSON.
        steps: each step of the pipeline, in order, and the steps whose outputs it takes.
        exit_status: see pipeline/exit_status.py; None of a run that is under way, or was killed.
        ended: why the run ended early, as the screen said; "" where it did not.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    steps: Mapping[str, list[str]] = field(default_factory=dict)
    exit_status: int | None = None
    ended: str = ""


def write_run_record(folder: Path, run_id: str, record: RunRecord) -> None:
    """Write the record of a run.

    Args:
        folder: of the runs of a pipeline.
        run_id: what the run is called.
        record: what to keep.
    """
    path = _path(folder, run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(asdict(record), option=orjson.OPT_INDENT_2))


def end_run_record(folder: Path, run_id: str, exit_status: int, ended: str) -> None:
    """Complete the record of a run; nothing where the run ended before it had one."""
    if _path(folder, run_id).exists():
        record = replace(read_run_record(folder, run_id), exit_status=exit_status, ended=ended)
        write_run_record(folder, run_id, record)


def read_run_record(folder: Path, run_id: str) -> RunRecord:
    """The record of a run, an empty one where there is none."""
    path = _path(folder, run_id)
    return RunRecord(**orjson.loads(path.read_bytes())) if path.exists() else RunRecord()


def _path(folder: Path, run_id: str) -> Path:
    return folder / "reports" / f"{run_id}.json"
