"""A schedule as Vertex AI takes it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pipeline.runners.run_request import RunRequest
from pipeline.runners.vertex import pipeline_job
from pipeline.runners.vertex_location import vertex_location
from pipeline.schedule_options import ScheduleOptions

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1.types import Schedule


def vertex_schedule(request: RunRequest, options: ScheduleOptions, credentials: Any) -> Schedule:
    """The schedule of a compiled pipeline: one run at a time, others wait or are left out as `overlap` says.

    https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.schedules

    Raises:
        BrokenInput: `cluster` lacks what Vertex AI needs, or names a region that it does not have.
    """
    from google.cloud.aiplatform_v1.types import CreatePipelineJobRequest, PipelineJob, Schedule

    # The job is not there yet, so its public properties are not either.
    job = PipelineJob(pipeline_job(request, credentials)._gca_resource)
    if request.cluster.service_account:
        job.service_account = request.cluster.service_account
    schedule = Schedule(
        display_name=request.name,
        cron=f"TZ={options.time_zone} {options.expression.text}",
        max_concurrent_run_count=1,
        allow_queueing=options.overlap == "queue",
        create_pipeline_job_request=CreatePipelineJobRequest(parent=vertex_location(request.cluster), pipeline_job=job),
    )
    if options.opens and options.opens > datetime.now(UTC):
        schedule.start_time = options.opens - timedelta(seconds=1)
    if options.closes:
        schedule.end_time = options.closes - timedelta(seconds=1)
    return schedule
