"""Options of a config that several parts of a run share: Beam, clusters, spans, schedules, bounds of divergence."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from components.errors import BrokenInput
from pipeline.schedules.cron import CronExpression, parse_cron_expression

IN_MEMORY_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
# TFX builds a wheel of itself for remote workers before each step, 2 s a time, unless an image is named.
NO_IMAGE = "unused"
_IMAGE_OPTION = "sdk_container_image"

OptionValue = str | int | float | bool


class BeamOptions(BaseModel):
    """Beam's runner and its options.

    Attributes:
        runner: as Beam names it (`DataflowRunner`, `FlinkRunner`, `SparkRunner`, `PortableRunner`), or a class by its
            dotted path. The default runs in the step's own process; Beam's `DirectRunner` would look for a binary on
            the network first.
        options: Beam's pipeline options without the dashes: `{project: my-project, num_workers: 4}`; a list repeats
            the option, `true` sets a flag.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    runner: str = IN_MEMORY_RUNNER
    options: dict[str, OptionValue | list[OptionValue]] = {}

    @model_validator(mode="after")
    def _check(self) -> BeamOptions:
        for name in self.options:
            if name.startswith("-") or name == "runner":
                raise ValueError(f"options: {name!r}: give names without dashes, and the runner as `beam.runner`")
        return self

    def pipeline_args(self, image: str | None = None) -> list[str]:
        """Command-line arguments, as TFX's `beam_pipeline_args` takes them.

        Args:
            image: what remote workers run, where the options name none: our DoFns import this project.

        Raises:
            BrokenInput: workers are containers, and no image is given.
        """
        if self._workers_are_containers() and not image and _IMAGE_OPTION not in self.options:
            raise BrokenInput(
                f"beam.runner is {self.runner}, whose workers are containers that must hold ingraph: "
                "`--set cluster.image=REGISTRY/ingraph:TAG` gives them the image of deploy/image/Dockerfile"
            )
        options = dict(self.options)
        if _IMAGE_OPTION not in options:
            options[_IMAGE_OPTION] = NO_IMAGE if self.runner == IN_MEMORY_RUNNER else (image or NO_IMAGE)
        arguments = [f"--runner={self.runner}"]
        for name, value in options.items():
            for each in value if isinstance(value, list) else [value]:
                if each is not False:
                    arguments.append(f"--{name}" if each is True else f"--{name}={each}")
        return arguments

    def _workers_are_containers(self) -> bool:
        environment = self.options.get("environment_type", "DOCKER")  # Beam's default
        return self.runner == "DataflowRunner" or (self.runner == "PortableRunner" and environment == "DOCKER")


class AcceleratorOptions(BaseModel):
    """GPUs of a step.

    Attributes:
        type: as the cluster names it: `nvidia.com/gpu` on Kubeflow, `NVIDIA_TESLA_T4` on Vertex.
        count: how many.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str = Field(min_length=1)
    count: int = Field(1, ge=1)


class StepResources(BaseModel):
    """What the container of a step is given.

    Attributes:
        cpu: cores.
        memory: GB; Vertex chooses the machine type that has both.
        accelerator: GPUs, or none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: float | None = Field(None, gt=0)
    memory: float | None = Field(None, gt=0)
    accelerator: AcceleratorOptions | None = None


class ClusterOptions(BaseModel):
    """What a compiled pipeline needs to know beside its config.

    Attributes:
        image: the container image of every step, see Dockerfile.
        pipeline_root: where artifacts go, and below it the data and the schema that a run brings along; a path that
            every step reaches, such as `gs://bucket/ingraph`.
        resources: step name (`Trainer`, `Transform`, …) -> what its container is given.
        host: Kubeflow: the address of the Pipelines API.
        experiment: Kubeflow: the experiment that runs are listed under.
        project: Vertex: the Google Cloud project.
        region: Vertex: such as `europe-west4`.
        service_account: what the steps run as, on both.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str | None = None
    pipeline_root: str | None = None
    resources: dict[str, StepResources] = {}
    host: str | None = None
    experiment: str = "ingraph"
    project: str | None = None
    region: str | None = None
    service_account: str | None = None


def _checked(bounds: dict[str, float | None]) -> dict[str, float | None]:
    for column, bound in bounds.items():
        if bound is not None and not 0 < bound <= 1:
            raise ValueError(f"the bound of {column!r} is {bound}; a divergence lies between 0 and 1")
    return bounds


# Column -> the largest Jensen-Shannon divergence, from 0 to 1; None leaves the column out.
DivergenceBounds = Annotated[dict[str, float | None], AfterValidator(_checked)]


NUMBERED = ("{SPAN}",)
DATED = ("{YYYY}", "{MM}", "{DD}")


class SpanOptions(BaseModel):
    """Where spans lie, how many a model learns from, and what of a new one stops a run.

    Attributes:
        path: the files of a span, with `{SPAN}` for its number or `{YYYY}`, `{MM}` and `{DD}` for its day, `*` and `?`
            as in a shell; relative to the config file.
        window: how many of the newest spans a model learns from.
        maximum_drift: the largest Jensen-Shannon divergence, from 0 to 1, between a column of a new span and of the
            span before it; None for no such check.
        maximum_drift_of: column -> its own bound, instead of that one; None leaves the column out.
        class_changes: whether a class that the served model does not have, or has alone, stops the run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    window: int = Field(ge=1)
    maximum_drift: float | None = Field(0.3, gt=0, le=1)
    maximum_drift_of: DivergenceBounds = {}
    class_changes: Literal["stop", "allow"] = "stop"

    @field_validator("path")
    @classmethod
    def _check_path(cls, path: str) -> str:
        placeholders = re.findall(r"{.*?}", path)
        if sorted(placeholders) not in (sorted(NUMBERED), sorted(DATED)):
            raise ValueError("expected {SPAN} once, or {YYYY}, {MM} and {DD} once each, data/{YYYY}-{MM}-{DD}/*.csv")
        return path

    def drift_bound(self, column: str) -> float | None:
        """The largest divergence of a column, None where it is not compared."""
        return self.maximum_drift_of.get(column, self.maximum_drift)


class SkewOptions(BaseModel):
    """Bounds for `ingraph skew`; what is not given here is as for spans, if the data come in spans.

    Attributes:
        maximum: the largest Jensen-Shannon divergence, from 0 to 1, between a column of the requests and of the
            training data; None for no bound.
        maximum_of: column -> its own bound, instead of that one; None leaves the column out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    maximum: float | None = Field(0.3, gt=0, le=1)
    maximum_of: DivergenceBounds = {}

    def bound(self, column: str, spans: SpanOptions | None) -> float | None:
        """The largest divergence of a column, None where it is not compared."""
        if column in self.maximum_of:
            return self.maximum_of[column]
        if spans is not None and "maximum" not in self.model_fields_set:
            return spans.drift_bound(column)
        return self.maximum


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
