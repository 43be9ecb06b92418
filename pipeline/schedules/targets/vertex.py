"""Vertex AI, by a schedule of its pipeline service."""

from __future__ import annotations

from google.auth.credentials import AnonymousCredentials

from pipeline.runners.vertex_location import vertex_location
from pipeline.schedules.apply_to_vertex import apply_to_vertex
from pipeline.schedules.remove_from_vertex import remove_from_vertex
from pipeline.schedules.schedule_request import ScheduleRequest
from pipeline.schedules.schedule_target import ScheduleTarget
from pipeline.schedules.scheduled_pipeline import scheduled_pipeline
from pipeline.schedules.vertex_client import vertex_client
from pipeline.schedules.vertex_schedule import vertex_schedule


def _show(request: ScheduleRequest) -> str:
    with scheduled_pipeline(request, "vertex", stage=False) as (run, lines):
        schedule = vertex_schedule(run, request.config.schedule, AnonymousCredentials())
    del schedule.create_pipeline_job_request.pipeline_job.pipeline_spec  # `ingraph compile` writes it
    return f"{type(schedule).to_json(schedule, always_print_fields_with_no_presence=False)}\n{lines}"


def _apply(request: ScheduleRequest) -> str:
    with (
        vertex_client(request.config.cluster) as (client, credentials),
        scheduled_pipeline(request, "vertex", stage=True) as (run, lines),
    ):
        name = apply_to_vertex(vertex_schedule(run, request.config.schedule, credentials), client)
        return f"scheduled {name}\n{lines}"


def _remove(request: ScheduleRequest) -> str:
    cluster = request.config.cluster
    with vertex_client(cluster) as (client, _):
        count = remove_from_vertex(client, vertex_location(cluster), request.scheduled.title)
    return f"removed {count} schedules named {request.scheduled.title}"


VERTEX = ScheduleTarget(_show, _apply, _remove)
