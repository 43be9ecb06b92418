"""A schedule put on Kubeflow Pipelines."""

from __future__ import annotations

from pipeline.runners.kubeflow_client import kubeflow_client
from pipeline.runners.run_request import RunRequest
from pipeline.schedule_options import ScheduleOptions
from pipeline.schedules.recurring_run import recurring_run
from pipeline.schedules.recurring_run_ids import recurring_run_ids


def apply_to_kubeflow(request: RunRequest, options: ScheduleOptions) -> str:
    """Make a recurring run in place of those of the same name; returns its address in the Pipelines UI.

    The new one is there before the old ones go, so that a failure leaves a schedule.

    Raises:
        BrokenInput: the config does not say where Kubeflow Pipelines is, or the schedule cannot be said there.
        NotSubmitted: it cannot be reached, or did not take the schedule.
    """
    with kubeflow_client(request.cluster, "the change") as client:
        experiment = client.create_experiment(request.cluster.experiment).experiment_id
        before = recurring_run_ids(client, experiment, request.name)
        created = client.create_recurring_run(**recurring_run(request, options, experiment))
        for run in before:
            client.delete_recurring_run(run)
    return f"{str(request.cluster.host).rstrip('/')}/#/recurringrun/details/{created.recurring_run_id}"
