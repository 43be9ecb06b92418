"""Compilation of a config into the pipeline spec that Kubeflow Pipelines and Vertex AI run."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from components.errors import BrokenInput
from components.table_example_gen.bigquery import is_bigquery
from pipeline.data import RawData, StagedFile
from pipeline.options import ClusterOptions, RunConfig, StepResources
from pipeline.spans import span_window, write_span_files
from pipeline.tasks import TASKS, raw_data, schema_file
from serving.model_store import KEY_VARIABLE

if TYPE_CHECKING:
    from tfx.dsl.components.base.base_component import BaseComponent
    from tfx.orchestration.pipeline import Pipeline

# What a container of the image is started with; the rest of its command line is in the spec.
_CONTAINER_COMMAND = ["python", "-m", "pipeline.container_main"]
# Both backends put the id of the run there.
_RUN_ID = "{{$.pipeline_job_uuid}}"

Target = Literal["kubeflow", "vertex"]


@dataclass(frozen=True)
class ClusterPipeline:
    """What is submitted.

    Attributes:
        job: a PipelineJob, see compile_job.
        staged: what must be copied before a run.
        base_path: the model base path that runs publish into.
    """

    job: dict[str, Any]
    staged: list[StagedFile]
    base_path: str


def cluster_pipeline(config: RunConfig, target: Target, folder: Path) -> ClusterPipeline:
    """Compile a config; nothing is sent anywhere.

    Data and a schema of this machine get a place below `cluster.pipeline_root` whose name changes with their content.
    Data in an object store or in BigQuery are read where they are. A relative `models` means a folder below the
    pipeline root.

    Args:
        config: of the run.
        target: what is going to run it.
        folder: where the tables of spans are put together.

    Raises:
        BrokenInput: the data cannot be used, or the config does not say enough about the cluster.
    """
    if config.push.signing_key:
        raise BrokenInput(
            "push.signing_key: a private key of this machine goes into no pipeline spec; remove it, mount the key into "
            f"the containers of the steps, and let the environment variable {KEY_VARIABLE} there name its file"
        )
    root = _root(config, target)
    _check_logs(config, root)
    staged: list[StagedFile] = []
    data = _data(config, folder)
    config = config.with_kinds(data.kinds)
    schema = schema_file(config)
    # Data that cannot be used are found before TFX is imported.
    from pipeline.dag import Locations, create_pipeline

    base_path = config.models if _is_shared(config.models) else f"{root}/{config.models}"
    locations = Locations(
        data=_stage(data.path, root, "data", staged, data.fingerprint),
        data_fingerprint=data.fingerprint,
        schema_file=_stage(schema, root, "schemas", staged) if schema else None,
        artifacts=root,
        metadata=None,
        base_path=f"{base_path}/{config.name}",
    )
    named = config.model_copy(update={"name": cluster_name(config.name)})
    pipeline = create_pipeline(named, locations, _RUN_ID, config.beam.pipeline_args(config.cluster.image))
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


def _check_logs(config: RunConfig, root: str) -> None:
    """Raises BrokenInput where the step that replays logged requests could not see them.

    They are no copy, as data are: logs grow, and each run reads the newest.
    """
    if config.evaluation.replay is None:
        return
    for place in config.evaluation.replay.logs:
        if "://" not in place and ("://" in root or not _without_dots(place).is_relative_to(_without_dots(root))):
            raise BrokenInput(
                f"evaluation.replay.logs is {place}: request logs of this machine are not copied to a cluster; give a "
                f"place that every step reaches, gs://… or below cluster.pipeline_root ({root}), or compile with "
                "--set evaluation.replay=null"
            )


def _without_dots(path: str) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 (resolve() would follow links, which clusters see as they are)


def _data(config: RunConfig, folder: Path) -> RawData:
    """The data, looked at where they are here."""
    if config.data.path and all("://" in path for path in config.data.path.splitlines()):
        return RawData(config.data.path, "")
    bigquery = getattr(config.data, "bigquery", None)
    if bigquery:
        # Read anew in each run: what the rows will be then is not known here.
        return RawData(bigquery.path(), "", _RUN_ID)
    if config.data.spans:
        content = TASKS[config.task].spans
        # What is served on the cluster is not known here, and so not which spans are new.
        if content.stays and "://" not in config.data.spans.path:
            raise BrokenInput(
                f"data.spans.path is {config.data.spans.path}: the photos of spans are not copied to a cluster; "
                "give a path that every step reaches, gs://…"
            )
        config = write_span_files(content, span_window(content, config.data, ()), config, folder).read_by(config)
    data = raw_data(config)
    if not data.path or not Path(data.path).exists():
        raise BrokenInput(
            f"{data.path or 'data.split.files'}: several files are not copied to a cluster; put them into one folder, "
            "or give paths that every step reaches, gs://…"
        )
    return data


def _stage(local: str, root: str, kind: str, staged: list[StagedFile], fingerprint: str = "") -> str:
    if "://" in local or is_bigquery(local):
        return local
    name = Path(local).name
    fingerprint = fingerprint or _content_hash(Path(local))
    staged.append(StagedFile(local, f"{root}/{kind}/{fingerprint[:16]}/{name}"))
    return staged[-1].remote


def _content_hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and the content of the files in a folder."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    files = {file.name: _content_hash(file) for file in sorted(path.iterdir()) if file.is_file()}
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def _is_shared(path: str) -> bool:
    return "://" in path or Path(path).is_absolute()


def compile_job(pipeline: Pipeline, cluster: ClusterOptions) -> dict[str, Any]:
    """A PipelineJob as JSON: `pipelineSpec` (schema version 2.1.0), `runtimeConfig`, `displayName`, `labels`.

    The open-source backend runs no resolver nodes, and the pipeline has none. Nodes that are told the id of the run
    look at what no cache knows, the model base path or BigQuery, and are not cached.

    Raises:
        BrokenInput: `cluster.image` is missing, or `cluster.resources` names a step that is not there.
    """
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2
    from tfx.orchestration.kubeflow.v2.kubeflow_v2_dag_runner import KubeflowV2DagRunner, KubeflowV2DagRunnerConfig

    if not cluster.image:
        raise BrokenInput(
            "cluster.image is missing: the container image that every step runs in, made from deploy/image/Dockerfile; "
            "`--set cluster.image=REGISTRY/ingraph:TAG` gives it"
        )
    _give_resources(pipeline.components, cluster.resources)
    runner = KubeflowV2DagRunner(
        config=KubeflowV2DagRunnerConfig(
            default_image=cluster.image, default_commands=_CONTAINER_COMMAND, use_pipeline_spec_2_1=True
        )
    )
    job: dict[str, Any] = runner.run(pipeline, write_out=False)
    for task in job["pipelineSpec"]["root"]["dag"]["tasks"].values():
        parameters = task.get("inputs", {}).get("parameters", {}).values()
        if any(parameter.get("runtimeValue", {}).get("constant") == _RUN_ID for parameter in parameters):
            task.pop("cachingOptions", None)
    parameters = job["pipelineSpec"]["root"].get("inputDefinitions", {}).get("parameters", {})
    for name, default in _defaults(pipeline.components).items():  # TFX leaves them out
        parameters[name]["defaultValue"] = default
    json_format.ParseDict(job["pipelineSpec"], pipeline_spec_pb2.PipelineSpec())
    return job


def _defaults(components: list[BaseComponent]) -> dict[str, Any]:
    from tfx.orchestration.data_types import RuntimeParameter

    values = [value for component in components for value in component.exec_properties.values()]
    return {value.name: value.default for value in values if isinstance(value, RuntimeParameter)}


def _give_resources(components: list[BaseComponent], resources: dict[str, StepResources]) -> None:
    from kfp.pipeline_spec import pipeline_spec_pb2

    spec = pipeline_spec_pb2.PipelineDeploymentConfig.PipelineContainerSpec.ResourceSpec
    by_name = {component.id: component for component in components}
    for step, given in resources.items():
        if step not in by_name:
            raise BrokenInput(f"cluster.resources.{step}: there is no such step; the steps are {', '.join(by_name)}")
        accelerator = given.accelerator
        by_name[step].platform_config = spec(
            cpu_limit=given.cpu or 0,
            memory_limit=given.memory or 0,
            accelerator=spec.AcceleratorConfig(type=accelerator.type, count=accelerator.count) if accelerator else None,
        )


def cluster_name(name: str) -> str:
    """A config's name as both backends take it: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9-]", "-", name.lower())


_YAML = (".yaml", ".yml")


def write_job(job: dict[str, Any], path: str) -> None:
    """Write a PipelineJob as JSON, which Vertex AI takes, or its spec alone as YAML, which Kubeflow Pipelines takes.

    Args:
        job: see compile_job.
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


@dataclass(frozen=True)
class RunRequest:
    """A run of a compiled pipeline.

    Attributes:
        spec_file: written by write_job.
        name: what to call it.
        parameters: values of its runtime parameters, where the compiled ones are not meant.
        cluster: where to run it.
    """

    spec_file: str
    name: str
    parameters: Mapping[str, str]
    cluster: ClusterOptions
