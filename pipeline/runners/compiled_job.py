"""A pipeline as the spec that Kubeflow Pipelines and Vertex AI run."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx import v1 as tfx
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.orchestration.data_types import RuntimeParameter

from components.errors import BrokenInput
from pipeline.cluster_options import ClusterOptions, StepResources

# What a container of the image is started with; the rest of its command line is in the spec.
CONTAINER_COMMAND = ["python", "-m", "pipeline.container_main"]
# Both backends put the id of the run there.
RUN_ID = "{{$.pipeline_job_uuid}}"
# A node with such a parameter looks at the model base path, which no cache knows.
_NEVER_CACHED = "run_id"

_ResourceSpec = pipeline_spec_pb2.PipelineDeploymentConfig.PipelineContainerSpec.ResourceSpec


def compile_job(pipeline: tfx.dsl.Pipeline, cluster: ClusterOptions) -> dict[str, Any]:
    """A PipelineJob as JSON: `pipelineSpec` (schema version 2.1.0), `runtimeConfig`, `displayName`, `labels`.

    The open-source backend runs no resolver nodes, and the pipeline has none. Nodes that look at the model base path
    are not cached.

    Raises:
        BrokenInput: `cluster.image` is missing, or `cluster.resources` names a step that is not there.
    """
    if not cluster.image:
        raise BrokenInput(
            "cluster.image is missing: the container image that every step runs in, made from deploy/image/Dockerfile; "
            "`--set cluster.image=REGISTRY/ingraph:TAG` gives it"
        )
    _give_resources(pipeline.components, cluster.resources)
    runner = tfx.orchestration.experimental.KubeflowV2DagRunner(
        config=tfx.orchestration.experimental.KubeflowV2DagRunnerConfig(
            default_image=cluster.image, default_commands=CONTAINER_COMMAND, use_pipeline_spec_2_1=True
        )
    )
    job: dict[str, Any] = runner.run(pipeline, write_out=False)
    for task in job["pipelineSpec"]["root"]["dag"]["tasks"].values():
        if _NEVER_CACHED in task.get("inputs", {}).get("parameters", {}):
            task.pop("cachingOptions", None)
    parameters = job["pipelineSpec"]["root"].get("inputDefinitions", {}).get("parameters", {})
    for name, default in _defaults(pipeline.components).items():  # TFX leaves them out
        parameters[name]["defaultValue"] = default
    json_format.ParseDict(job["pipelineSpec"], pipeline_spec_pb2.PipelineSpec())
    return job


def cluster_name(name: str) -> str:
    """A config's name as both backends take it: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9-]", "-", name.lower())


def _defaults(components: list[BaseComponent]) -> dict[str, Any]:
    values = [value for component in components for value in component.exec_properties.values()]
    return {value.name: value.default for value in values if isinstance(value, RuntimeParameter)}


def _give_resources(components: list[BaseComponent], resources: dict[str, StepResources]) -> None:
    by_name = {component.id: component for component in components}
    for step, given in resources.items():
        if step not in by_name:
            raise BrokenInput(f"cluster.resources.{step}: there is no such step; the steps are {', '.join(by_name)}")
        accelerator = given.accelerator
        by_name[step].platform_config = _ResourceSpec(
            cpu_limit=given.cpu or 0,
            memory_limit=given.memory or 0,
            accelerator=_ResourceSpec.AcceleratorConfig(type=accelerator.type, count=accelerator.count)
            if accelerator
            else None,
        )
