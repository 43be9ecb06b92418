"""A schedule taken from Kubeflow Pipelines."""

from __future__ import annotations

from pipeline.cluster_options import ClusterOptions
from pipeline.runners.kubeflow_client import kubeflow_client
from pipeline.schedules.recurring_run_ids import recurring_run_ids


def remove_from_kubeflow(cluster: ClusterOptions, name: str) -> int:
    """Delete the recurring runs of that name; returns how many there were. Runs that go on are left alone.

    Raises:
        BrokenInput: the config does not say where Kubeflow Pipelines is.
        NotSubmitted: it cannot be reached, or did not delete them.
    """
    with kubeflow_client(cluster, "the change") as client:
        try:
            experiment = client.get_experiment(experiment_name=cluster.experiment).experiment_id
        except ValueError:  # there is none
            return 0
        found = recurring_run_ids(client, experiment, name)
        for run in found:
            client.delete_recurring_run(run)
    return len(found)
