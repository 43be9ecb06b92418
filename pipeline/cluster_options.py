"""Where and how a compiled pipeline runs on Kubeflow Pipelines or Vertex AI."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class AcceleratorOptions(BaseModel):
    """GPUs of a step.

    Attributes:
        type: as the cluster names it: `nvidia.com/gpu` on Kubeflow, `NVIDIA_TESLA_T4` on Vertex.
        count: how many.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str = Field(min_length=1)
    count: int = Field(1, ge=1)


class StepResources(BaseModel):
    """What the container of a step is given.

    Attributes:
        cpu: cores.
        memory: GB; Vertex chooses the machine type that has both.
        accelerator: GPUs, or none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: float | None = Field(None, gt=0)
    memory: float | None = Field(None, gt=0)
    accelerator: AcceleratorOptions | None = None


class ClusterOptions(BaseModel):
    """What a compiled pipeline needs to know beside its config.

    Attributes:
        image: the container image of every step, see Dockerfile.
        pipeline_root: where artifacts go, and below it the data and the schema that a run brings along; a path that
            every step reaches, such as `gs://bucket/ingraph`.
        resources: step name (`Trainer`, `Transform`, …) -> what its container is given.
        host: Kubeflow: the address of the Pipelines API.
        experiment: Kubeflow: the experiment that runs are listed under.
        project: Vertex: the Google Cloud project.
        region: Vertex: such as `europe-west4`.
        service_account: what the steps run as, on both.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str | None = None
    pipeline_root: str | None = None
    resources: dict[str, StepResources] = {}
    host: str | None = None
    experiment: str = "ingraph"
    project: str | None = None
    region: str | None = None
    service_account: str | None = None
