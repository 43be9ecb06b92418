"""Write a compiled pipeline to a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from components.errors import BrokenInput

_YAML = (".yaml", ".yml")


def write_job(job: dict[str, Any], path: str) -> None:
    """Write a PipelineJob as JSON, which Vertex AI takes, or its spec alone as YAML, which Kubeflow Pipelines takes.

    Args:
        job: see pipeline.runners.compiled_job.
        path: its ending decides: .json, .yaml or .yml.

    Raises:
        BrokenInput: another ending, or the file cannot be written.
    """
    if path.endswith(".json"):
        content = json.dumps(job, indent=2, sort_keys=True)
    elif path.endswith(_YAML):
        content = yaml.safe_dump(job["pipelineSpec"], sort_keys=True)
    else:
        raise BrokenInput(f"{path}: expected a name that ends in .json (Vertex AI) or .yaml (Kubeflow Pipelines)")
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(content, encoding="utf-8")
    except OSError as error:
        raise BrokenInput(f"{path}: the compiled pipeline cannot be written: {error.strerror}") from error
