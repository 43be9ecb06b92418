"""What `ingraph retrain` needs."""

from __future__ import annotations

from components.errors import BrokenInput
from pipeline.config import RunConfig


def require_spans(config: RunConfig, path: str) -> None:
    """Let nobody find out at night that a config cannot be trained anew.

    Raises:
        BrokenInput: its data do not come in spans.
    """
    if config.data.spans is None:
        raise BrokenInput(
            f"{path}: data.spans is missing: a schedule on this machine or Airflow runs `ingraph retrain`, which "
            "trains on the newest spans"
        )
