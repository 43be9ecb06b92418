"""Runs on Kubeflow Pipelines."""

from __future__ import annotations

from typing import Any

from components.errors import BrokenInput, NotSubmitted
from pipeline.runners.run_request import RunRequest


def submit_to_kubeflow(request: RunRequest) -> str:
    """Start a run; returns its address in the Pipelines UI.

    https://kubeflow-pipelines.readthedocs.io/en/stable/source/client.html

    Raises:
        BrokenInput: the config does not say where Kubeflow Pipelines is.
        NotSubmitted: it cannot be reached, or did not take the run.
    """
    import kfp
    from kfp_server_api.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    host = request.cluster.host
    if not host:
        raise BrokenInput(
            "cluster.host is missing: the address of the Pipelines API, http://localhost:8080 after "
            "`kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80`, for example"
        )
    try:
        client = kfp.Client(host=host)
        run = client.create_run_from_pipeline_package(**run_arguments(request))
    except (ApiException, HTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise NotSubmitted(f"{host}: Kubeflow Pipelines did not take the run: {reason}") from error
    return f"{host.rstrip('/')}/#/runs/details/{run.run_id}"


def run_arguments(request: RunRequest) -> dict[str, Any]:
    """The arguments of kfp.Client.create_run_from_pipeline_package."""
    return {
        "pipeline_file": request.spec_file,
        "arguments": dict(request.parameters),
        "run_name": request.name,
        "experiment_name": request.cluster.experiment,
        "pipeline_root": request.cluster.pipeline_root,
        "service_account": request.cluster.service_account,
    }
