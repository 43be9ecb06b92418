"""Runs on Vertex AI Pipelines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from components.errors import BrokenInput, NotSubmitted
from pipeline.runners.run_request import RunRequest

if TYPE_CHECKING:
    from google.cloud import aiplatform


def submit_to_vertex(request: RunRequest) -> str:
    """Start a run; returns its address in the Google Cloud console.

    Raises:
        BrokenInput: the config does not say which project and region, or there are no credentials.
        NotSubmitted: Vertex AI cannot be reached, or did not take the run.
    """
    import google.auth
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError

    try:
        credentials, _ = google.auth.default()
    except DefaultCredentialsError as error:
        raise BrokenInput(
            "there are no Google Cloud credentials; `gcloud auth application-default login`, or "
            "GOOGLE_APPLICATION_CREDENTIALS with the path of a service account's key, gives some"
        ) from error
    try:
        job = pipeline_job(request, credentials)
        job.submit(service_account=request.cluster.service_account)
    except (GoogleAPIError, GoogleAuthError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise NotSubmitted(f"Vertex AI in {request.cluster.region} did not take the run: {reason}") from error
    return str(job._dashboard_uri())


def pipeline_job(request: RunRequest, credentials: Any) -> aiplatform.PipelineJob:
    """The request to run a compiled pipeline.

    https://cloud.google.com/python/docs/reference/aiplatform/latest/google.cloud.aiplatform.PipelineJob

    Raises:
        BrokenInput: `cluster` lacks what Vertex AI needs.
    """
    from google.cloud import aiplatform

    cluster = request.cluster
    for key, example in (("project", "my-project"), ("region", "europe-west4")):
        if not getattr(cluster, key):
            raise BrokenInput(f"cluster.{key} is missing: Vertex AI needs it; `--set cluster.{key}={example}` gives it")
    return aiplatform.PipelineJob(
        display_name=request.name,
        template_path=request.spec_file,
        pipeline_root=cluster.pipeline_root,
        parameter_values=dict(request.parameters),
        project=cluster.project,
        location=cluster.region,
        credentials=credentials,
    )
