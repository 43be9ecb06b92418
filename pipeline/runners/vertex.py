"""Runs on Vertex AI Pipelines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from components.errors import BrokenInput
from pipeline.runners.run_request import RunRequest
from pipeline.runners.vertex_credentials import vertex_credentials
from pipeline.runners.vertex_location import vertex_location

if TYPE_CHECKING:
    from google.cloud import aiplatform


def submit_to_vertex(request: RunRequest) -> str:
    """Start a run; returns its address in the Google Cloud console.

    Raises:
        BrokenInput: `cluster` lacks what Vertex AI needs, or names a region that it does not have; or there are no
            credentials.
        NotSubmitted: Vertex AI cannot be reached, or did not take the run.
    """
    with vertex_credentials(request.cluster, "the run") as credentials:
        job = pipeline_job(request, credentials)
        job.submit(service_account=request.cluster.service_account)
    return str(job._dashboard_uri())


def pipeline_job(request: RunRequest, credentials: Any) -> aiplatform.PipelineJob:
    """The request to run a compiled pipeline.

    https://cloud.google.com/python/docs/reference/aiplatform/latest/google.cloud.aiplatform.PipelineJob

    Raises:
        BrokenInput: `cluster` lacks what Vertex AI needs, or names a region that it does not have.
    """
    from google.cloud import aiplatform

    cluster = request.cluster
    vertex_location(cluster)
    try:
        return aiplatform.PipelineJob(
            display_name=request.name,
            template_path=request.spec_file,
            pipeline_root=cluster.pipeline_root,
            parameter_values=dict(request.parameters),
            project=cluster.project,
            location=cluster.region,
            credentials=credentials,
        )
    except ValueError as error:
        reason = " ".join(str(error).split())[:300]
        raise BrokenInput(f"Vertex AI does not take the pipeline as `cluster` describes it: {reason}") from error
