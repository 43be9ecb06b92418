"""Kubeflow Pipelines: its client, and runs of compiled pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any

from components.errors import BrokenInput, NotSubmitted
from pipeline.options import ClusterOptions
from pipeline.runners.compile import RunRequest

if TYPE_CHECKING:
    import kfp


@contextmanager
def kubeflow_client(cluster: ClusterOptions, sent: str) -> Iterator[kfp.Client]:
    """A kfp.Client whose errors become a sentence.

    Source: https://kubeflow-pipelines.readthedocs.io/en/stable/source/client.html

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


def submit_to_kubeflow(request: RunRequest) -> str:
    """Start a run; returns its address in the Pipelines UI.

    Raises:
        BrokenInput: the config does not say where Kubeflow Pipelines is.
        NotSubmitted: it cannot be reached, or did not take the run.
    """
    with kubeflow_client(request.cluster, "the run") as client:
        run = client.create_run_from_pipeline_package(**_run_arguments(request))
    return f"{str(request.cluster.host).rstrip('/')}/#/runs/details/{run.run_id}"


def _run_arguments(request: RunRequest) -> dict[str, Any]:
    """The arguments of kfp.Client.create_run_from_pipeline_package."""
    return {
        "pipeline_file": request.spec_file,
        "arguments": dict(request.parameters),
        "run_name": request.name,
        "experiment_name": request.cluster.experiment,
        "pipeline_root": request.cluster.pipeline_root,
        "service_account": request.cluster.service_account,
    }
