"""A connection to Kubeflow Pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING

from components.errors import BrokenInput, NotSubmitted
from pipeline.cluster_options import ClusterOptions

if TYPE_CHECKING:
    import kfp


@contextmanager
def kubeflow_client(cluster: ClusterOptions, sent: str) -> Iterator[kfp.Client]:
    """A client, whose errors become a sentence.

    https://kubeflow-pipelines.readthedocs.io/en/stable/source/client.html

    Args:
        cluster: where Kubeflow Pipelines is.
        sent: what it is sent, in words: "the run".

    Raises:
        BrokenInput: the config does not say where Kubeflow Pipelines is.
        NotSubmitted: it cannot be reached, or did not do what it was asked for.
    """
    import kfp
    from kfp_server_api.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    if not cluster.host:
        raise BrokenInput(
            "cluster.host is missing: the address of the Pipelines API; after "
            "`kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80`, for example, "
            "`--set cluster.host=http://localhost:8080` gives it"
        )
    try:
        with redirect_stdout(StringIO()):  # it prints links to pages
            yield kfp.Client(host=cluster.host)
    except (ApiException, HTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise NotSubmitted(f"{cluster.host}: Kubeflow Pipelines did not take {sent}: {reason}") from error
