"""Run a config on the spans that have come since the last published version."""

from __future__ import annotations

from components.errors import BrokenInput
from pipeline.config import RunConfig
from pipeline.exit_status import ExitStatus
from pipeline.run import run


def retrain(config: RunConfig, workdir: str) -> ExitStatus:
    """`ingraph run`, unless the last published version learned from the same spans.

    Args:
        config: what to run.
        workdir: what relative `runs` and `models` of the config are relative to.

    Raises:
        BrokenInput: the config's data do not come in spans.
    """
    if config.data.spans is None:
        raise BrokenInput(
            "data.spans is missing: what retrains learns from data that come in spans, "
            "`spans: {path: data/{YYYY}-{MM}-{DD}/*.csv, window: 30}`"
        )
    return run(config, workdir, only_new_data=True)
