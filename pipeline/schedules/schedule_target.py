"""What can keep a schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.schedules.schedule_request import ScheduleRequest


@dataclass(frozen=True)
class ScheduleTarget:
    """What can keep a schedule; each function returns what to print, and raises RunStopped.

    Attributes:
        show: what `apply` would hand over; changes nothing.
        apply: hands the schedule over, in place of the one that is there for the same model.
        remove: takes it away; runs that go on are left alone.
    """

    show: Callable[[ScheduleRequest], str]
    apply: Callable[[ScheduleRequest], str]
    remove: Callable[[ScheduleRequest], str]
