"""Finding schedules of Vertex AI."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1 import ScheduleServiceClient
    from google.cloud.aiplatform_v1.types import Schedule


def vertex_schedules_named(client: ScheduleServiceClient, parent: str, name: str) -> list[Schedule]:
    """The schedules of that display name; `parent` is projects/…/locations/…."""
    request = {"parent": parent, "filter": f'display_name="{name}"'}
    return [schedule for schedule in client.list_schedules(request=request) if schedule.display_name == name]
