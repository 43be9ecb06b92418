"""A schedule taken from Vertex AI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.schedules.vertex_schedules_named import vertex_schedules_named

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1 import ScheduleServiceClient


def remove_from_vertex(client: ScheduleServiceClient, parent: str, name: str) -> int:
    """Delete the schedules of that display name; returns how many there were. Runs that go on are left alone."""
    found = vertex_schedules_named(client, parent, name)
    for schedule in found:
        client.delete_schedule(name=schedule.name).result()
    return len(found)
