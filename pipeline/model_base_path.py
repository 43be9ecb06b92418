"""Where a run publishes its model."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import RunConfig


def model_base_path(config: RunConfig, workdir: str) -> str:
    """The model base path of a config; `workdir` is what a relative `models` is relative to."""
    models = config.models if "://" in config.models else str(Path(workdir, config.models).resolve())
    return f"{models}/{config.name}"
