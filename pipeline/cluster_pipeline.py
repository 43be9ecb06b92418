"""A config as a pipeline for a cluster."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from components.errors import BrokenInput
from pipeline.config import RunConfig
from pipeline.raw_data import raw_data
from pipeline.schema_file import schema_file
from pipeline.span_files import write_span_files
from pipeline.span_window import span_window
from pipeline.staged_file import StagedFile

Target = Literal["kubeflow", "vertex"]


@dataclass(frozen=True)
class ClusterPipeline:
    """What is submitted.

    Attributes:
        job: see pipeline.runners.compiled_job.compile_job.
        staged: what must be copied before a run.
        base_path: the model base path that runs publish into.
    """

    job: dict[str, Any]
    staged: list[StagedFile]
    base_path: str


def cluster_pipeline(config: RunConfig, target: Target, folder: Path) -> ClusterPipeline:
    """Compile a config; nothing is sent anywhere.

    Data and a schema of this machine get a place below `cluster.pipeline_root` whose name changes with their content.
    Data in an object store are read where they are. A relative `models` means a folder below the pipeline root.

    Args:
        config: of the run.
        target: what is going to run it.
        folder: where copies of data are made, if the ExampleGen cannot read them as they are.

    Raises:
        BrokenInput: the data cannot be used, or the config does not say enough about the cluster.
    """
    root = _root(config, target)
    staged: list[StagedFile] = []
    data_path, data_fingerprint = _data(config, folder, root, staged)
    schema = schema_file(config)
    from pipeline.dag import Locations, create_pipeline
    from pipeline.runners.compiled_job import RUN_ID, cluster_name, compile_job

    base_path = config.models if _is_shared(config.models) else f"{root}/{config.models}"
    locations = Locations(
        data=data_path,
        data_fingerprint=data_fingerprint,
        schema_file=_stage(schema, root, "schemas", staged) if schema else None,
        artifacts=root,
        metadata=None,
        base_path=f"{base_path}/{config.name}",
    )
    named = config.model_copy(update={"name": cluster_name(config.name)})
    pipeline = create_pipeline(named, locations, RUN_ID, config.beam.pipeline_args(config.cluster.image))
    return ClusterPipeline(compile_job(pipeline, config.cluster), staged, locations.base_path)


def _root(config: RunConfig, target: Target) -> str:
    root = (config.cluster.pipeline_root or "").rstrip("/")
    if not root:
        raise BrokenInput(
            "cluster.pipeline_root is missing: a path that every step reaches and writes to; "
            "`--set cluster.pipeline_root=gs://BUCKET/ingraph` gives it"
        )
    if target == "vertex" and not root.startswith("gs://"):
        raise BrokenInput(f"cluster.pipeline_root is {root!r}; Vertex AI needs a folder of Cloud Storage, gs://…")
    return root


def _data(config: RunConfig, folder: Path, root: str, staged: list[StagedFile]) -> tuple[str, str]:
    if config.data.path and "://" in config.data.path:
        return config.data.path, ""
    if config.data.spans:
        # What is served on the cluster is not known here, and so not which spans are new.
        if config.task == "image" and "://" not in config.data.spans.path:
            raise BrokenInput(
                f"data.spans.path is {config.data.spans.path}: the photos of spans are not copied to a cluster; "
                "give a path that every step reaches, gs://…"
            )
        config = write_span_files(span_window(config.data, versions=()), config, folder).read_by(config)
    data = raw_data(config, folder)
    return _stage(data.path, root, "data", staged, data.fingerprint), data.fingerprint


def _stage(local: str, root: str, kind: str, staged: list[StagedFile], fingerprint: str = "") -> str:
    if "://" in local:
        return local
    name = Path(local).name
    fingerprint = fingerprint or hashlib.sha256(Path(local).read_bytes()).hexdigest()
    staged.append(StagedFile(local, f"{root}/{kind}/{fingerprint[:16]}/{name}"))
    return staged[-1].remote


def _is_shared(path: str) -> bool:
    return "://" in path or Path(path).is_absolute()
