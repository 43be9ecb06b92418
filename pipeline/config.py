"""A run is a config: a YAML file and command-line overrides, validated and frozen."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from types import UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from components.errors import BrokenInput
from components.evaluator.options import EvaluationOptions
from components.run_report.model_card import ModelCard
from components.table_file import TableFormat
from pipeline.options import BeamOptions, ClusterOptions, ScheduleOptions, SkewOptions, SpanOptions
from trainers.image.options import FineTuneOptions, ImageTrainerOptions, WrapOptions
from trainers.options import TOLERANCES, Objective, TunerOptions
from trainers.tabular.options import TabularTrainerOptions
from trainers.text.options import NgramOptions, TextTrainerOptions
from transform.options import ImageOptions, TabularOptions, TextOptions


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataOptions(_Section):
    """Where the examples come from.

    Attributes:
        path: a CSV or TSV file with a header or a JSON lines file, relative to the config file.
        format: of that file, where the ending of its name does not say it, see components/table_file.py.
        dataset: a demo data set instead, see pipeline/demo_data.py.
        spans: files that arrive in spans instead, see pipeline/options.py.
        schema_file: a curated schema (text proto), relative to the config file; without it one is inferred.
        eval_share: the share of examples that is held out, by a hash of each example.
        minimum_examples: how many examples each split needs.
    """

    path: str | None = None
    format: TableFormat | None = None
    dataset: Literal["hearts", "reviews", "digits"] | None = None
    spans: SpanOptions | None = None
    schema_file: str | None = None
    eval_share: float = Field(0.2, gt=0, lt=1)
    minimum_examples: int = Field(20, ge=1)

    @model_validator(mode="after")
    def _check(self) -> DataOptions:
        if sum(source is not None for source in (self.path, self.dataset, self.spans)) != 1:
            raise ValueError("give either path (your own file) or dataset (hearts, reviews, digits) or spans")
        return self


class PhotoDataOptions(DataOptions):
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


class ServingCheckOptions(_Section):
    """How closely a served answer must match the training graph's.

    Attributes:
        tolerance: how far a probability may be off.
        maximum_examples: how many examples of the eval split are asked at most.
    """

    tolerance: float = Field(1e-6, gt=0)
    maximum_examples: int = Field(1000, ge=1)


class RunConfig(_Section):
    """Everything that describes a run.

    Attributes:
        name: of the pipeline and the model: letters, digits, `-` and `_`.
        task: which of the packages' files apply, and so which class of TASKS.
        data: the examples.
        preprocessing: see transform/<task>_options.py.
        trainer: see trainers/<task>_options.py.
        tuner: which of these options are searched for and how, see trainers/options.py; None for no search.
        evaluation: see components/evaluator/options.py.
        serving_check: the last gate.
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
    # Options of the trainer that other steps depend on, or that no search may choose.
    not_tuned: ClassVar[frozenset[str]] = frozenset({"warm_start"})

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    task: str
    data: DataOptions
    preprocessing: TabularOptions | TextOptions | ImageOptions
    trainer: TabularTrainerOptions | TextTrainerOptions | FineTuneOptions | WrapOptions
    tuner: TunerOptions | None = None
    evaluation: EvaluationOptions
    serving_check: ServingCheckOptions = ServingCheckOptions()
    model_card: ModelCard = ModelCard()
    runs: str = "runs"
    models: str = "models"
    beam: BeamOptions = BeamOptions()
    cluster: ClusterOptions = ClusterOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    skew: SkewOptions = SkewOptions()

    @property
    def learns(self) -> bool:
        """Whether the run trains a model, rather than taking one that exists."""
        return not isinstance(self.trainer, WrapOptions)

    @model_validator(mode="after")
    def _check_thresholds(self) -> RunConfig:
        if self.learns and not self.evaluation.has_bounds:
            raise ValueError(
                "evaluation: no threshold: give at least one under at_least or at_most, `at_least: {accuracy: 0.7}`"
            )
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


class TabularRunConfig(RunConfig):
    """A run on rows of a table."""

    preprocessing: TabularOptions
    trainer: TabularTrainerOptions = TabularTrainerOptions()


class TextRunConfig(RunConfig):
    """A run on texts; the model decides about the features."""

    not_tuned: ClassVar[frozenset[str]] = frozenset({"model", "handle", "warm_start"})

    preprocessing: TextOptions
    trainer: TextTrainerOptions = NgramOptions()

    @field_validator("trainer", mode="before")
    @classmethod
    def _default_model(cls, trainer: Any) -> Any:
        return {"model": "ngrams", **trainer} if isinstance(trainer, dict) else trainer

    @model_validator(mode="after")
    def _complete_preprocessing(self) -> TextRunConfig:
        object.__setattr__(self, "preprocessing", self.preprocessing.completed(self.trainer.features))
        return self


class ImageRunConfig(RunConfig):
    """A run on photos; the model decides about the pixels, and about its labels, where the config does not."""

    objective: ClassVar[Objective] = "accuracy"
    not_tuned: ClassVar[frozenset[str]] = frozenset({"mode", "backbone", "weights", "warm_start", "precision"})

    data: PhotoDataOptions
    preprocessing: ImageOptions = ImageOptions()
    trainer: ImageTrainerOptions
    # What is wrapped may be served without being measured.
    evaluation: EvaluationOptions = EvaluationOptions()

    @model_validator(mode="after")
    def _complete_preprocessing(self) -> ImageRunConfig:
        labels = self.trainer.label_order()
        if labels and self.preprocessing.label.order:
            raise ValueError("preprocessing.label.order: trainer.labels lists the labels of a classifier; give one")
        completed = self.preprocessing.completed(self.trainer.pixel_format(), labels)
        object.__setattr__(self, "preprocessing", completed)
        return self

    @model_validator(mode="after")
    def _complete_tolerance(self) -> ImageRunConfig:
        if "tolerance" not in self.serving_check.model_fields_set:
            tolerance = {"tolerance": TOLERANCES[self.trainer.precision]}
            object.__setattr__(self, "serving_check", self.serving_check.model_copy(update=tolerance))
        return self


TASKS: dict[str, type[RunConfig]] = {"tabular": TabularRunConfig, "text": TextRunConfig, "image": ImageRunConfig}


def load_config(path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a config; paths of data in it become absolute.

    Args:
        path: the YAML file.
        overrides: `key=value` with dots in the key, `trainer.epochs=10`; the value is YAML.

    Raises:
        BrokenInput: the file, a key or a value cannot be used; the message names it.
    """
    content = _read(path)
    for override in overrides:
        _override(content, override)
    config_class = _config_class(path, content)
    folder = Path(path).resolve().parent
    try:
        config = config_class.model_validate(content, context={"folder": str(folder)})
    except ValidationError as error:
        raise BrokenInput("; ".join(_sentence(path, detail, config_class) for detail in error.errors())) from error
    absolute: dict[str, Any] = {
        key: _absolute(value, folder)
        for key in ("path", "schema_file")
        if (value := getattr(config.data, key)) is not None
    }
    if config.data.spans:
        absolute["spans"] = config.data.spans.model_copy(update={"path": _absolute(config.data.spans.path, folder)})
    return config.model_copy(update={"data": config.data.model_copy(update=absolute)})


def _absolute(path: str, folder: Path) -> str:
    return path if "://" in path else str(folder / path)


def _read(path: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BrokenInput(f"{path}: no such config file; configs/ holds examples to start from") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BrokenInput(f"{path}: the config cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise BrokenInput(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise BrokenInput(f"{path}: expected keys such as `name:` and `data:`, found {type(content).__name__}")
    return content


def _config_class(path: str, content: dict[str, Any]) -> type[RunConfig]:
    if "task" not in content:
        raise BrokenInput(f"{path}: the key 'task' is missing; expected one of {', '.join(TASKS)}")
    task = content["task"]
    if not isinstance(task, str) or task not in TASKS:
        raise BrokenInput(f"{path}: task: expected one of {', '.join(TASKS)}, received {task!r}")
    return TASKS[task]


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise BrokenInput(f"--set {override}: expected key=value, `--set trainer.epochs=10` for example")
    *parents, last = key.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            raise BrokenInput(f"--set {override}: {parent!r} holds a value, not keys")
    try:
        content[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise BrokenInput(f"--set {override}: the value is not valid YAML: {' '.join(str(error).split())}") from error


def _sentence(path: str, detail: Any, config_class: type[RunConfig]) -> str:
    keys, _ = _place(config_class, detail["loc"])
    key = ".".join(keys)
    if detail["type"] == "extra_forbidden":
        _, section = _place(config_class, detail["loc"][:-1])
        known = list(getattr(section, "model_fields", {}))
        close = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1)
        advice = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return f"{path}: unknown key {key!r}; {advice}"
    if detail["type"] == "union_tag_not_found":
        return f"{path}: the key '{key}.mode' is missing; expected fine_tune or wrap"
    if detail["type"] == "missing":
        return f"{path}: the key {key!r} is missing"
    message = detail["msg"].removeprefix("Value error, ")
    received = detail["input"]
    shown = "" if isinstance(received, dict | list | tuple) else f", received {received!r}"
    return f"{path}: {key or 'the config'}: {message}{shown}"


def _place(config_class: type[RunConfig], location: Sequence[str | int]) -> tuple[list[str], Any]:
    """The keys that a person wrote to get to pydantic's location, and the section that stands there."""
    section: Any = config_class
    keys: list[str] = []
    discriminator: str | None = None
    for part in location:
        if discriminator:  # the part says which of several sections it is, and is no key
            section = next(
                one for one in get_args(section) if part in get_args(one.model_fields[discriminator].annotation)
            )
            discriminator = None
            continue
        keys.append(str(part))
        field = getattr(section, "model_fields", {}).get(part)
        if field is None:  # inside a mapping such as `columns`, whose values are sections again
            nested = [argument for argument in get_args(section) if hasattr(argument, "model_fields")]
            section = nested[0] if nested else section
        else:
            section, discriminator = field.annotation, field.discriminator
            if get_origin(section) in (Union, UnionType) and not discriminator:  # a section that may be left out
                section = next((kind for kind in get_args(section) if hasattr(kind, "model_fields")), section)
    return keys, section
