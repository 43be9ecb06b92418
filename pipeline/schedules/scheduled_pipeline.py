"""A config as the pipeline that a cluster runs again and again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pipeline.cluster_pipeline import cluster_pipeline
from pipeline.quiet_output import quiet_output
from pipeline.runners.run_request import RunRequest
from pipeline.schedules.schedule_request import ScheduleRequest

_ENDINGS = {"kubeflow": ".yaml", "vertex": ".json"}


@contextmanager
def scheduled_pipeline(
    request: ScheduleRequest, target: Literal["kubeflow", "vertex"], *, stage: bool
) -> Iterator[tuple[RunRequest, str]]:
    """Compile a config to a file that is there for as long as the context; with it, what every run reads and writes.

    Args:
        request: whose config.
        target: what is going to run it.
        stage: whether to copy the files of this machine that runs need.

    Raises:
        RunStopped: the data cannot be used, or the config does not say enough about the cluster.
    """
    config, workdir = request.config, request.scheduled.folder
    with tempfile.TemporaryDirectory() as folder:
        with quiet_output(Path(os.devnull)):
            from pipeline.runners.write_job import write_job

            compiled = cluster_pipeline(config, target, Path(workdir, config.runs, config.name, "data"))
            file = str(Path(folder, f"{config.name}{_ENDINGS[target]}"))
            write_job(compiled.job, file)
            for staged in compiled.staged if stage else []:
                staged.copy()
        lines = [f"publishes into {compiled.base_path}"]
        lines += [f"every run reads {file.remote}, a copy of {file.local} as it is now" for file in compiled.staged]
        yield RunRequest(file, request.scheduled.title, {}, config.cluster), "\n".join(lines)
