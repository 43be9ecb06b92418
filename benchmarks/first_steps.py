"""What `ingraph run` does up to Transform."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

LAST_STEP = "Transform"
# Other steps before it look at statistics alone, and take as long for many items as for few.
STEPS = ("CsvExampleGen", "ImageExampleGen", "StatisticsGen", LAST_STEP)


def first_steps(config_file: str) -> dict[str, float]:
    """Seconds of each step that reads the data.

    Args:
        config_file: of the run; what it leaves lies beside it.
    """
    from pipeline.config import load_config
    from pipeline.dag import Locations, create_pipeline
    from pipeline.raw_data import raw_data
    from pipeline.runners.hasten_beam import hasten_beam
    from pipeline.runners.local import BEAM_PIPELINE_ARGS, LocalRunner
    from pipeline.schema_file import schema_file

    hasten_beam()
    config, folder = load_config(config_file), str(Path(config_file).parent)
    started = time.perf_counter()
    data = raw_data(config, Path(folder))
    seconds = {"looking through": time.perf_counter() - started}
    locations = Locations(
        data=data.path,
        data_fingerprint=data.fingerprint,
        schema_file=schema_file(config),
        artifacts=f"{folder}/artifacts",
        metadata=f"{folder}/metadata.sqlite",
        base_path=f"{folder}/models",
    )

    def ended(step: str, spent: float) -> None:
        if step in STEPS:
            seconds[step] = spent
        if step == LAST_STEP:
            raise _Enough

    pipeline = create_pipeline(config, locations, "first-steps", BEAM_PIPELINE_ARGS)
    with contextlib.suppress(_Enough):
        LocalRunner("first-steps", lambda step: None, ended).run(pipeline)
    return seconds


class _Enough(Exception):
    """The steps that follow are of no interest."""
