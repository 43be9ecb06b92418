"""Runs on Kubeflow Pipelines."""

from __future__ import annotations

from typing import Any

from pipeline.runners.kubeflow_client import kubeflow_client
from pipeline.runners.run_request import RunRequest


def submit_to_kubeflow(request: RunRequest) -> str:
    """Start a run; returns its address in the Pipelines UI.

    Raises:
        BrokenInput: the config does not say where Kubeflow Pipelines is.
        NotSubmitted: it cannot be reached, or did not take the run.
    """
    with kubeflow_client(request.cluster, "the run") as client:
        run = client.create_run_from_pipeline_package(**run_arguments(request))
    return f"{str(request.cluster.host).rstrip('/')}/#/runs/details/{run.run_id}"


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
