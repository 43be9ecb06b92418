"""Options of a config: its sections, and what all tasks have in common. pipeline/tasks.py has what a task adds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from components.evaluator.options import EvaluationOptions
from components.table_example_gen.bigquery import BigQuerySource
from components.table_example_gen.options import Ingestion, SplitOptions, TableFormat, TableReading
from pipeline.runners.beam_engine import BeamOptions
from pipeline.schedules.cron import CronExpression, parse_cron_expression
from trainers.image.options import FineTuneOptions, WrapOptions
from trainers.options import Objective, ServingOptions, TunerOptions
from trainers.tabular.options import TabularTrainerOptions, WrapTableOptions
from trainers.text.options import TextTrainerOptions
from transform.options import ImageOptions, TabularOptions, TextOptions


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

    @model_validator(mode="before")
    @classmethod
    def _one_container(cls, content: Any) -> Any:
        if isinstance(content, dict) and "workers" in content:
            raise ValueError(
                "workers: a compiled pipeline gives each step one container; give it GPUs by accelerator.count, or "
                "start its command as a job of workers, see docs/devices.md"
            )
        return content


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


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataOptions(_Section):
    """Where the examples come from.

    Attributes:
        path: of the data, relative to the config file.
        dataset: a demo data set instead, see pipeline/demo_data.py.
        spans: files that arrive in spans instead, see pipeline/options.py.
        schema_file: a curated schema (text proto), relative to the config file; without it one is inferred.
        eval_share: the share of examples that is held out, by a hash of each example.
        minimum_examples: how many examples each split needs.
        sample: so many examples of each split are taken at most, the same ones each time, some of each label; of photos
            whose split no folder says, so many in all.
        allow: columns that may tell the label, and `duplicates` for rows that may stand in both splits: what DataGate
            says no more.
    """

    path: str | None = None
    dataset: Literal["hearts", "reviews", "digits"] | None = None
    spans: SpanOptions | None = None
    schema_file: str | None = None
    eval_share: float = Field(0.2, gt=0, lt=1)
    minimum_examples: int = Field(10, ge=1)
    sample: int | None = Field(None, ge=1)
    allow: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> DataOptions:
        if sum(source is not None for source in self._sources()) != 1:
            raise ValueError(
                "give either path (your own file) or dataset (hearts, reviews, digits) or spans, or bigquery for rows"
            )
        return self

    def _sources(self) -> list[Any]:
        return [self.path, self.dataset, self.spans]


class TableDataOptions(DataOptions):
    """Where rows come from: files in CSV, TSV, JSON lines, Parquet or TFRecord, see components/table_example_gen.

    Attributes:
        path: one file, a list of files, a pattern, or a folder of files.
        bigquery: a table of BigQuery, or a query, instead.
        format: of the files, where the endings of their names do not say it.
        delimiter, header: of a CSV file: between its fields; the columns where its first line does not name them.
        encoding: of text files.
        decimal, thousands: what stands before the decimals of a number, and between three digits, in CSV and TSV.
        missing: what stands where there is no value, beside an empty field.
        strip: whether blanks around a value are no part of it; by default true, but of texts.
        split: how rows that are held out are told from others.
        test_share: the share that only the report sees.
        weight: a column of numbers, how much each row counts in training and in the evaluation; of tables alone.
    """

    bigquery: BigQuerySource | None = None
    format: TableFormat | None = None
    delimiter: str | None = None
    header: tuple[str, ...] = ()
    encoding: str = "utf-8"
    decimal: Literal[".", ","] = "."
    thousands: Literal[".", ",", " ", "'"] | None = None
    missing: tuple[str, ...] = ()
    strip: bool | None = None
    split: SplitOptions = SplitOptions()
    test_share: float = Field(0.0, ge=0, lt=1)
    weight: str | None = None

    @field_validator("path", mode="before")
    @classmethod
    def _join_paths(cls, path: Any) -> Any:
        return "\n".join(path) if isinstance(path, list) and all(isinstance(part, str) for part in path) else path

    @model_validator(mode="after")
    def _check_reading(self) -> TableDataOptions:
        self.reading(as_text=False)
        of_files = self.model_fields_set & {"format", "delimiter", "header", "encoding", "decimal", "thousands"}
        if self.bigquery and of_files:
            raise ValueError(f"{', '.join(sorted(of_files))}: of files alone; rows of BigQuery have their types")
        if self.eval_share + self.test_share >= 1:
            raise ValueError(f"eval_share and test_share are {self.eval_share + self.test_share:g}: nothing is left")
        return self

    def _sources(self) -> list[Any]:
        return [*super()._sources(), self.split.files, self.bigquery]

    def reading(self, as_text: bool) -> TableReading:
        """How the files are read, as a table or as texts."""
        given = self.model_dump(include=set(TableReading.model_fields) - {"strip", "as_text"})
        return TableReading(**given, as_text=as_text, strip=not as_text if self.strip is None else self.strip)


class ImageDataOptions(DataOptions):
    """Where photos come from.

    Attributes:
        max_unreadable_share: the run stops where more photos than that cannot be used.
    """

    max_unreadable_share: float = Field(0.01, ge=0, lt=1)

    @field_validator("spans")
    @classmethod
    def _check_spans(cls, spans: SpanOptions | None) -> SpanOptions | None:
        if spans is not None and not spans.path.lower().endswith(".csv"):
            class_folder = PurePosixPath(spans.path).parent.name
            if "{" in class_folder or not class_folder:
                raise ValueError(
                    "spans.path: expected class folders below the folder of a span, photos/{YYYY}-{MM}-{DD}/*/*, "
                    f"or lists of photos, photos/{{SPAN}}.csv; received {spans.path!r}"
                )
        return spans


class ModelCard(BaseModel):
    """The part of a model card that no measurement knows; the report adds the measurements.

    After Mitchell et al., Model Cards for Model Reporting, 2019.

    Attributes:
        intended_use: what the model is for.
        not_for: what it must not be used for.
        data: where the data comes from, who is in it, under which licence.
        limits: what is known to go wrong.
        owner: whom to ask.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    intended_use: str = ""
    not_for: str = ""
    data: str = ""
    limits: str = ""
    owner: str = ""


class ServingCheckOptions(_Section):
    """How closely a served answer must match the training graph's.

    Attributes:
        tolerance: how far a probability may be off.
        maximum_examples: how many examples of the eval split are asked at most.
    """

    tolerance: float = Field(1e-6, gt=0)
    maximum_examples: int = Field(1000, ge=1)


class PushOptions(_Section):
    """How a model is published.

    Attributes:
        signing_key: the file of the private key that versions are signed with, relative to the config file. No record
            of a run holds it.
    """

    signing_key: str | None = Field(None, exclude=True, repr=False)


class RunConfig(_Section):
    """Everything that describes a run.

    Attributes:
        name: of the pipeline and the model: letters, digits, `-` and `_`.
        task: which row of pipeline/tasks.py applies.
        data: the examples.
        preprocessing: see transform/options.py.
        trainer: see trainers/<task>/options.py.
        tuner: which of these options are searched for and how, see trainers/options.py; None for no search.
        evaluation: see components/evaluator/options.py.
        serving: what the exported model answers, see trainers/options.py.
        serving_check: the last gate.
        push: how the model is published.
        model_card: what the report says of the model that no measurement knows.
        runs: the folder of runs and their metadata.
        models: the folder that holds each model's base path; may be an object store's.
        beam: what runs the Beam steps, see pipeline/options.py.
        cluster: where a compiled pipeline runs, see pipeline/options.py.
        schedule: when it is trained anew, see pipeline/options.py.
        skew: how far requests may lie from the training data, see pipeline/options.py.
    """

    # What trials of a search are compared by.
    objective: ClassVar[Objective] = "auc"
    # Whether a label may be decided by a threshold, see serving.decision.
    decides: ClassVar[bool] = False
    # Options of the trainer that other steps depend on, or that no search may choose.
    not_tuned: ClassVar[frozenset[str]] = frozenset({"warm_start"})

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    task: str
    data: DataOptions
    preprocessing: TabularOptions | TextOptions | ImageOptions
    trainer: TabularTrainerOptions | WrapTableOptions | TextTrainerOptions | FineTuneOptions | WrapOptions
    tuner: TunerOptions | None = None
    evaluation: EvaluationOptions
    serving: ServingOptions = ServingOptions()
    serving_check: ServingCheckOptions = ServingCheckOptions()
    push: PushOptions = PushOptions()
    model_card: ModelCard = ModelCard()
    runs: str = "runs"
    models: str = "models"
    beam: BeamOptions = BeamOptions()
    cluster: ClusterOptions = ClusterOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    skew: SkewOptions = SkewOptions()

    def with_kinds(self, kinds: Mapping[str, str | Mapping[str, str]]) -> RunConfig:
        """The config with kinds of columns of which it says nothing."""
        return self

    @property
    def learns(self) -> bool:
        """Whether the run trains a model, rather than taking one that exists."""
        return True

    @model_validator(mode="after")
    def _check_thresholds(self) -> RunConfig:
        if self.learns and not self.evaluation.has_bounds:
            raise ValueError(
                "evaluation: no threshold: give at least one under at_least or at_most, `at_least: {accuracy: 0.7}`"
            )
        return self

    @model_validator(mode="after")
    def _check_positive(self) -> RunConfig:
        self.evaluation.check_positive(self.preprocessing.label.positive)
        return self

    @model_validator(mode="after")
    def _check_serving(self) -> RunConfig:
        self.serving.check(self.preprocessing.label, decides=self.decides, learns=self.learns)
        return self

    @model_validator(mode="after")
    def _check_tuner(self) -> RunConfig:
        if self.tuner is None:
            return self
        if not self.learns:
            raise ValueError(
                "tuner: a classifier that is wrapped is not trained, and has nothing to tune; remove tuner"
            )
        if getattr(self.trainer, "warm_start", False):
            raise ValueError("tuner: trials begin cold, and trainer.warm_start does not; turn one of both off")
        self.tuner.check(self.trainer, self.not_tuned)
        if self.tuner.objective is None:
            object.__setattr__(self, "tuner", self.tuner.model_copy(update={"objective": self.objective}))
        return self

    @field_validator("models", "runs")
    @classmethod
    def _no_trailing_slash(cls, path: str) -> str:
        return path.rstrip("/") or "/"


class TableRunConfig(RunConfig):
    """A run on rows of files."""

    # Whether every column is taken as text, as it is written.
    as_text: ClassVar[bool] = False
    # Whether columns of which the config says nothing are looked at, to find what suits them.
    chooses_columns: ClassVar[bool] = False

    data: TableDataOptions
    preprocessing: TabularOptions | TextOptions

    def model_columns(self) -> Mapping[str, str]:
        """The columns that a model takes which exists -> number or category; {} where one is trained."""
        return {}

    def open_texts(self) -> Sequence[str]:
        """Columns of texts of which the config does not say into which terms they are cut."""
        return ()

    def ingestion(self) -> Ingestion:
        """What is done with the rows."""
        return Ingestion(
            reading=self.data.reading(self.as_text),
            split=self.data.split,
            eval_share=self.data.eval_share,
            test_share=self.data.test_share,
            text_column=getattr(self.preprocessing, "column", None),
            split_of_input=self.data.split.files is not None,
            columns_differ=self.data.spans is not None,
            sample=self.data.sample,
            label=self.preprocessing.label.column if self.data.sample else "",
        )
