"""When a model is trained anew."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from pipeline.schedules.cron_expression import CronExpression, parse_cron_expression

Overlap = Literal["skip", "queue"]
CatchUp = Literal["none", "latest", "all"]


class ScheduleWindow(BaseModel):
    """The days on which the schedule holds, both included; without one it is open on that side.

    Attributes:
        start: the first day, in the schedule's time zone.
        end: the last day, in the schedule's time zone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: date | None = None
    end: date | None = None

    @model_validator(mode="after")
    def _check(self) -> ScheduleWindow:
        if self.start and self.end and self.start > self.end:
            raise ValueError(f"start {self.start} comes after end {self.end}")
        return self


class ScheduleOptions(BaseModel):
    """When a model is trained anew; docs/schedules.md says what each target makes of it.

    Attributes:
        cron: minute, hour, day of month, month, day of week: `0 3 * * mon-fri`.
        time_zone: an IANA name such as Europe/Berlin; what the cron expression and the window are read in.
        overlap: of a run that falls due while another one runs: skip it, or queue it until that one has ended.
        catch_up: which of the runs that were missed, since nothing was there to start them, are made up.
        window: the days on which the schedule holds.
        kubeflow_time_zone: the zone that an installation of Kubeflow Pipelines reads every schedule in, its
            CRON_SCHEDULE_TIMEZONE.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cron: str | None = None
    time_zone: str = "UTC"
    overlap: Overlap = "skip"
    catch_up: CatchUp = "none"
    window: ScheduleWindow = ScheduleWindow()
    kubeflow_time_zone: str = "UTC"

    @field_validator("cron")
    @classmethod
    def _readable(cls, cron: str | None) -> str | None:
        if cron is not None:
            parse_cron_expression(cron)
        return cron

    @field_validator("time_zone", "kubeflow_time_zone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):  # OSError: a folder of the database, such as Europe
            raise ValueError("expected the IANA name of a time zone, Europe/Berlin for example") from None
        return name

    @model_validator(mode="after")
    def _check(self) -> ScheduleOptions:
        if self.cron is None and self.model_fields_set - {"cron"}:
            raise ValueError('cron is missing: say when, `cron: "0 3 * * *"` for example')
        return self

    @property
    def expression(self) -> CronExpression:
        """The cron expression; there must be one."""
        return parse_cron_expression(self.cron or "")

    @property
    def zone(self) -> ZoneInfo:
        """What the cron expression and the window are read in."""
        return ZoneInfo(self.time_zone)

    @property
    def opens(self) -> datetime | None:
        """The instant from which runs are due."""
        return datetime.combine(self.window.start, time(), self.zone) if self.window.start else None

    @property
    def closes(self) -> datetime | None:
        """The instant from which runs are no longer due."""
        return datetime.combine(self.window.end + timedelta(days=1), time(), self.zone) if self.window.end else None
