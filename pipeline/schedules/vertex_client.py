"""A connection to the schedules of Vertex AI."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from components.errors import BrokenInput, NotSubmitted
from pipeline.cluster_options import ClusterOptions

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1 import ScheduleServiceClient


@contextmanager
def vertex_client(cluster: ClusterOptions) -> Iterator[tuple[ScheduleServiceClient, Any]]:
    """A client and its credentials; errors become a sentence.

    Raises:
        BrokenInput: the config does not say which project and region, or there are no credentials.
        NotSubmitted: Vertex AI cannot be reached, or did not do what it was asked for.
    """
    import google.auth
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
    from google.cloud.aiplatform_v1 import ScheduleServiceClient

    for key, example in (("project", "my-project"), ("region", "europe-west4")):
        if not getattr(cluster, key):
            raise BrokenInput(f"cluster.{key} is missing: Vertex AI needs it; `--set cluster.{key}={example}` gives it")
    try:
        credentials, _ = google.auth.default()
        address = {"api_endpoint": f"{cluster.region}-aiplatform.googleapis.com"}
        yield ScheduleServiceClient(credentials=credentials, client_options=address), credentials
    except DefaultCredentialsError as error:
        raise BrokenInput(
            "there are no Google Cloud credentials; `gcloud auth application-default login`, or "
            "GOOGLE_APPLICATION_CREDENTIALS with the path of a service account's key, gives some"
        ) from error
    except (GoogleAPIError, GoogleAuthError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise NotSubmitted(f"Vertex AI in {cluster.region} did not take the change: {reason}") from error
