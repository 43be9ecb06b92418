"""A connection to the schedules of Vertex AI."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipeline.cluster_options import ClusterOptions
from pipeline.runners.vertex_credentials import vertex_credentials

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1 import ScheduleServiceClient


@contextmanager
def vertex_client(cluster: ClusterOptions) -> Iterator[tuple[ScheduleServiceClient, Any]]:
    """A client and its credentials; errors become a sentence.

    Raises:
        BrokenInput: the config does not say which project and region, or there are no credentials.
        NotSubmitted: Vertex AI cannot be reached, or did not do what it was asked for.
    """
    from google.cloud.aiplatform_v1 import ScheduleServiceClient

    with vertex_credentials(cluster, "the change") as credentials:
        address = {"api_endpoint": f"{cluster.region}-aiplatform.googleapis.com"}
        yield ScheduleServiceClient(credentials=credentials, client_options=address), credentials
