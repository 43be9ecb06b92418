"""A schedule as a recurring run of Kubeflow Pipelines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from components.errors import BrokenInput
from pipeline.runners.run_request import RunRequest
from pipeline.schedule_options import ScheduleOptions


def recurring_run(request: RunRequest, options: ScheduleOptions, experiment_id: str) -> dict[str, Any]:
    """The arguments of kfp.Client.create_recurring_run.

    Kubeflow's cron has a field for seconds first. It looks for the time after `start_time`, so that a run that is due
    when the window opens needs a start before it. One run at a time; without catch-up the latest missed run is made up.

    https://kubeflow-pipelines.readthedocs.io/en/stable/source/client.html

    Raises:
        BrokenInput: the installation reads cron expressions in another time zone.
    """
    if options.time_zone != options.kubeflow_time_zone:
        raise BrokenInput(
            f"schedule.time_zone is {options.time_zone}, but Kubeflow Pipelines reads every cron expression in one "
            f"zone, here {options.kubeflow_time_zone}: write the schedule in that zone, or set CRON_SCHEDULE_TIMEZONE "
            "of the deployment ml-pipeline-scheduledworkflow, and schedule.kubeflow_time_zone, to another"
        )
    return {
        "experiment_id": experiment_id,
        "job_name": request.name,
        "start_time": _instant(options.opens),
        "end_time": _instant(options.closes),
        "cron_expression": f"0 {options.expression.text}",
        "max_concurrency": 1,
        "no_catchup": options.catch_up != "all",
        "params": dict(request.parameters),
        "pipeline_package_path": request.spec_file,
        "enabled": True,
        "pipeline_root": request.cluster.pipeline_root,
        "service_account": request.cluster.service_account,
    }


def _instant(limit: datetime | None) -> str | None:
    """RFC 3339, a second before a limit of the window."""
    return (limit - timedelta(seconds=1)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if limit else None
