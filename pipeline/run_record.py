"""What ML Metadata does not keep of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
        metrics: of the whole eval split, so that a list of runs need not load TFMA.
        data_spans: the spans that the data are of, the oldest first.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    steps: Mapping[str, list[str]] = field(default_factory=dict)
    exit_status: int | None = None
    ended: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    data_spans: Sequence[str] = ()


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


def read_run_record(folder: Path, run_id: str) -> RunRecord:
    """The record of a run, an empty one where there is none."""
    path = _path(folder, run_id)
    return RunRecord(**orjson.loads(path.read_bytes())) if path.exists() else RunRecord()


def _path(folder: Path, run_id: str) -> Path:
    return folder / "reports" / f"{run_id}.json"
