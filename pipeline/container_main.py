"""The entry point of every compiled step's container: `python -m pipeline.container_main …`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from components.errors import RunStopped
from pipeline.exit_status import status_of_error
from pipeline.runners.beam_engine import require_engine
from serving.loading import garbage_collection_paused
from trainers.errors import TrainingError
from transform.errors import PreprocessingError


def container_main(arguments: Sequence[str]) -> None:
    """Run one step as TFX's own entry point for Kubeflow Pipelines v2 does, and Beam as it is, without speed-ups.

    A step that stops the run ends with one sentence and the exit status of `ingraph run`, not with a stack trace.

    Args:
        arguments: `--executor_class_path`, `--json_serialized_invocation_args`, `--json_serialized_inputs_spec_args`
            and options of Beam, as TFX compiles them.
    """
    with garbage_collection_paused():
        from absl import app
        from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor

    def run_step(parsed: object) -> None:
        try:
            require_engine(arguments)
            kubeflow_v2_run_executor.main(parsed)
        except (RunStopped, PreprocessingError, TrainingError) as stopped:
            sys.stderr.write(f"{stopped}\n")
            sys.exit(status_of_error(stopped))

    app.run(run_step, argv=["container_main", *arguments], flags_parser=kubeflow_v2_run_executor._parse_flags)


if __name__ == "__main__":
    container_main(sys.argv[1:])
