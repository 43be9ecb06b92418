"""Vertex AI Pipelines: its location and credentials, and runs of compiled pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from components.errors import BrokenInput, NotSubmitted
from pipeline.options import ClusterOptions
from pipeline.runners.compile import RunRequest

if TYPE_CHECKING:
    from google.cloud import aiplatform

_EXAMPLES = {"project": "my-project", "region": "europe-west4"}


def vertex_location(cluster: ClusterOptions) -> str:
    """The resource name of a project's region, the parent of what runs there.

    Raises:
        BrokenInput: the config does not say which project and region.
    """
    for key, example in _EXAMPLES.items():
        if not getattr(cluster, key):
            raise BrokenInput(f"cluster.{key} is missing: Vertex AI needs it; `--set cluster.{key}={example}` gives it")
    return f"projects/{cluster.project}/locations/{cluster.region}"


@contextmanager
def vertex_credentials(cluster: ClusterOptions, sent: str) -> Iterator[Any]:
    """Google Cloud credentials of this machine; errors of Google's clients become a sentence.

    Args:
        cluster: which project and region are asked.
        sent: what Vertex AI is sent, in words: "the run".

    Raises:
        BrokenInput: the config does not say which project and region, or there are no credentials.
        NotSubmitted: Vertex AI cannot be reached, or did not do what it was asked for.
    """
    import google.auth
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError

    vertex_location(cluster)
    try:
        credentials, _ = google.auth.default()
        yield credentials
    except DefaultCredentialsError as error:
        raise BrokenInput(
            "there are no Google Cloud credentials; `gcloud auth application-default login`, or "
            "GOOGLE_APPLICATION_CREDENTIALS with the path of a service account's key, gives some"
        ) from error
    except (GoogleAPIError, GoogleAuthError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise NotSubmitted(f"Vertex AI in {cluster.region} did not take {sent}: {reason}") from error


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
    """A PipelineJob of a compiled pipeline, not yet submitted.

    Source: https://cloud.google.com/python/docs/reference/aiplatform/latest/google.cloud.aiplatform.PipelineJob

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
