"""The JSON files that components leave in their artifacts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components.run_report.finished_run import FinishedRun


def artifact_json(run: FinishedRun, role: str, name: str) -> Mapping[str, Any]:
    """A JSON file of an artifact of a run, {} where there is none."""
    path = f"{run.artifacts[role].uri}/{name}" if role in run.artifacts else ""
    content: dict[str, Any] = json.loads(io_utils.read_string_file(path)) if path and fileio.exists(path) else {}
    return content
