"""A schedule put on Vertex AI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.schedules.vertex_schedules_named import vertex_schedules_named

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1 import ScheduleServiceClient
    from google.cloud.aiplatform_v1.types import Schedule

_CHANGEABLE = ("cron", "start_time", "end_time", "max_concurrent_run_count", "allow_queueing")


def apply_to_vertex(schedule: Schedule, client: ScheduleServiceClient) -> str:
    """Make a schedule, or change that of the same name; returns its resource name.

    Vertex AI never changes the pipeline of a schedule: where that differs, a new schedule is made, and then the one
    before deleted, so that a failure leaves a schedule.
    """
    from google.protobuf.field_mask_pb2 import FieldMask

    parent = schedule.create_pipeline_job_request.parent
    before = vertex_schedules_named(client, parent, schedule.display_name)
    same = [known for known in before if _pipeline(known) == _pipeline(schedule)]
    if same:
        kept = same[0]
        given = type(schedule)(schedule, name=kept.name)
        if not schedule.start_time:
            given.start_time = kept.start_time
        kept = client.update_schedule(schedule=given, update_mask=FieldMask(paths=_CHANGEABLE))
    else:
        kept = client.create_schedule(parent=parent, schedule=schedule)
    for known in before:
        if known.name != kept.name:
            client.delete_schedule(name=known.name).result()
    return str(kept.name)


def _pipeline(schedule: Schedule) -> tuple[object, ...]:
    job = schedule.create_pipeline_job_request.pipeline_job
    return job.pipeline_spec, job.runtime_config, job.service_account
