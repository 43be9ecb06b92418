"""Search for hyperparameters without training the model that they are for."""

from __future__ import annotations

import time

from components.errors import BrokenInput
from pipeline.config import RunConfig
from pipeline.exit_status import ExitStatus
from pipeline.metadata_store import open_metadata_store
from pipeline.prepared_run import PreparedRun
from pipeline.recorded_run import read_recorded_run
from pipeline.run import run
from pipeline.run_ids import TUNING
from serving.uncollected_imports import uncollected_imports


def tune(config: RunConfig, workdir: str) -> ExitStatus:
    """`ingraph run` up to the Tuner; shows the trials and the best values. A run that follows does not search again.

    Args:
        config: what to tune.
        workdir: what relative `runs` and `models` of the config are relative to.

    Raises:
        BrokenInput: the config says nothing about tuning.
    """
    if config.tuner is None:
        raise BrokenInput(
            "tuner is missing: it says which options of the trainer are searched for, "
            "`tuner: {space: {learning_rate: {min: 0.001, max: 0.1, sampling: log}}}`"
        )
    return run(config, workdir, goal=_search, prefix=TUNING)


def _search(prepared: PreparedRun) -> ExitStatus:
    with uncollected_imports():
        from components.tuner.trials import read_trials
        from pipeline.dag import create_tuning_pipeline
        from pipeline.run_outcome import cached_nodes
        from pipeline.runners.local import LocalRunner
        from trainers.hyperparameter_search import TENSORBOARD

    screen, run_id = prepared.screen, prepared.run_id
    started = time.monotonic()
    pipeline = create_tuning_pipeline(prepared.config, prepared.locations, prepared.beam_arguments)

    def node_ended(node: str, seconds: float) -> None:
        screen.node_ended(node, seconds, node in cached_nodes(prepared.metadata, run_id))

    LocalRunner(run_id, screen.node_started, node_ended).run(pipeline)
    results = read_recorded_run(open_metadata_store(prepared.metadata), run_id).artifacts["tuner_results"].uri
    screen.trials(read_trials(results), f"{results}/{TENSORBOARD}", time.monotonic() - started)
    return ExitStatus.PUBLISHED
