"""What Vertex AI is asked with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from components.errors import BrokenInput, NotSubmitted
from pipeline.cluster_options import ClusterOptions
from pipeline.runners.vertex_location import vertex_location


@contextmanager
def vertex_credentials(cluster: ClusterOptions, sent: str) -> Iterator[Any]:
    """This machine's credentials; errors of Google's clients become a sentence.

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
