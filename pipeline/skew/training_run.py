"""What the served model learned from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tfx.dsl.io import fileio

from components.errors import BrokenInput
from components.run_report.run_artifact import RunArtifact
from pipeline.config import RunConfig
from pipeline.metadata_store import open_metadata_store
from pipeline.model_base_path import model_base_path
from pipeline.recorded_run import read_recorded_run
from serving.model_store import ModelStoreError, ModelVersion, served_version


@dataclass(frozen=True)
class TrainingRun:
    """The run that published the served version.

    Attributes:
        version: what is served.
        base_path: where.
        run_id: of the run.
        examples: its artifact of examples.
        statistics: its artifact of their statistics.
    """

    version: ModelVersion
    base_path: str
    run_id: str
    examples: RunArtifact
    statistics: RunArtifact


def find_training_run(config: RunConfig, workdir: str) -> TrainingRun:
    """Find it by the provenance of the version.

    Args:
        config: of the model.
        workdir: what relative `runs` and `models` of the config are relative to.

    Raises:
        BrokenInput: nothing is published, or the data of its run are not here.
    """
    base_path = model_base_path(config, workdir)
    try:
        version = served_version(base_path)
    except ModelStoreError as error:
        raise BrokenInput(str(error)) from error
    if version is None:
        raise BrokenInput(f"{base_path}: no published version there; `ingraph run` publishes one")
    run_id = str(version.provenance.get("run_id", ""))
    metadata = Path(workdir, config.runs, config.name).resolve() / "metadata.sqlite"
    artifacts = read_recorded_run(open_metadata_store(str(metadata)), run_id).artifacts if metadata.exists() else {}
    for role in ("examples", "statistics"):
        if role not in artifacts or not fileio.exists(artifacts[role].uri):
            raise BrokenInput(
                f"version {version.number} in {base_path} is of run {run_id or '(not known)'}, and the {role} of its "
                f"data are not in {metadata.parent}; `--workdir` and `runs` in the config say where it ran"
            )
    return TrainingRun(version, base_path, run_id, artifacts["examples"], artifacts["statistics"])
