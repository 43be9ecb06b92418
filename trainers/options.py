"""Options that all trainers share: paths beside the config, precision, the search for hyperparameters."""

from __future__ import annotations

import difflib
import posixpath
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from transform.options import LabelOptions


def option_type(trainer: BaseModel, name: str) -> Any:
    """The type of an option's values: `int` or `float` where they are single numbers, else what it is annotated with.

    Args:
        trainer: options, which may hold others.
        name: of one of them, dots between what holds it and itself.

    Raises:
        ValueError: there is no such option; the message names those that there are.
    """
    section: Any = type(trainer)
    for part in name.split("."):
        known = getattr(section, "model_fields", {})
        if part not in known:
            close = difflib.get_close_matches(part, known, n=1)
            advice = f"did you mean {close[0]!r}?" if close else f"the options are {', '.join(known) or 'none'}"
            raise ValueError(f"tuner.space.{name}: trainer has no such option; {advice}")
        section = known[part].annotation
    members = get_args(section) if get_origin(section) in (Union, UnionType) else (section,)
    return next((number for number in (int, float) if number in members), section)


def beside_config(path: str, info: ValidationInfo) -> str:
    """The path, which is relative to the folder of the config file where it is relative.

    A config is validated with that folder as `folder` in pydantic's validation context; without one, paths are taken
    for absolute ones already. Addresses (`https://...`, `gs://...`) stay as they are.
    """
    folder = (info.context or {}).get("folder", "")
    return path if "://" in path else posixpath.normpath(posixpath.join(folder, path))


PathBesideConfig = Annotated[str, AfterValidator(beside_config)]


# Bytes, or a text such as 2GiB or 500MB.
Memory = Annotated[ByteSize, Field(gt=0)]

Precision = Literal["float32", "bfloat16"]
# Of what is exported of photos' networks; see trainers/image/precision.py.
ImagePrecision = Literal["float32", "bfloat16", "int8"]

# See trainers/devices.py. `auto`: all GPUs, or the processor where there are none.
DeviceChoice = Literal["auto", "cpu"] | Annotated[int, Field(ge=1, strict=True)]
# `auto`: where GPUs have it; bfloat16: on a processor, too.
MixedPrecision = bool | Literal["auto", "bfloat16"]

# How far a probability of a served model of photos may be from the trained model's, where a config does not say it.
# float32: the sums of a network's many layers are rounded in another order in batches of other sizes, and batch
# normalization is folded into the convolutions. bfloat16: each number is kept to eight bits, layer after layer, which
# moves the probabilities of two labels that are close by some hundredths. int8: a number that is rounded to the next
# whole one in a batch of another size moves the layers behind it.
TOLERANCES: dict[ImagePrecision, float] = {"float32": 1e-4, "bfloat16": 5e-2, "int8": 5e-2}


OfLabel = Literal["precision", "recall", "specificity"]


class DecisionOptions(BaseModel):
    """From which probability on the positive label is answered; one of these.

    Attributes:
        threshold: the probability.
        maximise: the threshold that is best by this metric, on rows of the train split that models did not see.
        at_least: a metric that is reached on these rows, at the best threshold of those that reach it: of precision and
            specificity the one with the highest recall, of recall the one with the highest precision.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float | None = Field(None, gt=0, lt=1)
    maximise: Literal["f1", "accuracy"] | None = None
    at_least: dict[OfLabel, Annotated[float, Field(gt=0, le=1)]] = {}

    @model_validator(mode="after")
    def _check(self) -> DecisionOptions:
        given = [self.threshold is not None, self.maximise is not None, *(True for _ in self.at_least)]
        if sum(given) != 1:
            raise ValueError(
                "give one of threshold: 0.3, maximise: f1 (or accuracy), and at_least: {precision: 0.9} with one metric"
            )
        return self

    def __str__(self) -> str:
        """As a config has it."""
        if self.threshold is not None:
            return f"threshold: {self.threshold:g}"
        if self.maximise is not None:
            return f"maximise: {self.maximise}"
        ((metric, bound),) = self.at_least.items()
        return f"at_least: {{{metric}: {bound:g}}}"


Options = TypeVar("Options", bound=BaseModel)


def tuned_options(options: Options, values: Mapping[str, Any]) -> Options:
    """The options with these values, by name, dots between what holds an option and itself.

    Raises:
        ValidationError: an option refuses its value.
    """
    if not values:
        return options
    content = options.model_dump()
    for name, value in values.items():
        *holders, last = name.split(".")
        section = content
        for holder in holders:
            section = section[holder]
        section[last] = value
    return type(options).model_validate(content)


class UnknownOptions(BaseModel):
    """Rows that serving_default answers with a label of its own, for the model does not know: see serving/answers.py.

    Attributes:
        label: what is answered then; none of the model's labels.
        confidence: a label whose probability is smaller is not answered; or
        coverage: the share of new rows whose label set holds the true label; a label is answered where it is the set
            alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str = "unknown"
    confidence: float | None = Field(None, gt=0, le=1)
    coverage: float | None = Field(None, gt=0, lt=1)

    @field_validator("label")
    @classmethod
    def _check_label(cls, label: str) -> str:
        if not label.strip():
            raise ValueError("expected a label, `unknown` for example; nothing is the answer to what cannot be read")
        return label

    @model_validator(mode="after")
    def _check(self) -> UnknownOptions:
        if (self.confidence is None) == (self.coverage is None):
            raise ValueError("give either confidence, `confidence: 0.7`, or coverage, `coverage: 0.9`")
        return self

    def check(self, labels: Iterable[str]) -> None:
        """Raises ValueError where one of the model's labels has the name."""
        if self.label in labels:
            raise ValueError(
                f"serving.unknown.label is {self.label!r}, which is one of the model's labels; choose a name that no "
                "label has"
            )


class ExplainOptions(BaseModel):
    """How the signature `explain` comes to its contributions, see serving/signatures/explain.py.

    Attributes:
        samples: how many orders of the parts are drawn, each with its reverse; None for the default of the task.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int | None = Field(None, ge=2, le=1024, multiple_of=2)


class ServingOptions(BaseModel):
    """What the exported model answers.

    Attributes:
        decision: from which probability on it answers the positive label; None for the most probable label. Of tables
            alone.
        unknown: when it answers a label of its own, whatever was decided before; None for never.
        explain: of the signature `explain`, `true` for the defaults; None for no such signature.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision: DecisionOptions | None = None
    unknown: UnknownOptions | None = None
    explain: ExplainOptions | None = None

    @field_validator("explain", mode="before")
    @classmethod
    def _explain(cls, value: Any) -> Any:
        if isinstance(value, bool):
            return {} if value else None
        if value is not None and not isinstance(value, dict | BaseModel):
            raise ValueError("expected true, false or {samples: 64}")
        return value

    def explain_samples(self, default: int) -> int | None:
        """How many orders `explain` draws; None for no such signature.

        Args:
            default: of the task.
        """
        return None if self.explain is None else self.explain.samples or default

    def check(self, label: LabelOptions, decides: bool, learns: bool) -> None:
        """Check them against the rest of a config.

        Args:
            label: of the preprocessing.
            decides: whether models of the task know a decision.
            learns: whether the run trains a model, rather than taking one that exists.

        Raises:
            ValueError: they do not go together.
        """
        if self.unknown is not None:
            self.unknown.check({*label.order, *label.names.values()})
        if self.decision is None:
            return
        if not decides:
            raise ValueError(
                "serving.decision is for task: tabular; texts and photos get the most probable label, so leave it out"
            )
        if label.positive is None:
            raise ValueError(
                "serving.decision is about one label; name it: preprocessing.label.positive, as the label is served"
            )
        if not learns and self.decision.threshold is None:
            raise ValueError(
                f"serving.decision.{self.decision} is chosen on rows that the model did not see, which nobody knows of "
                "one that is wrapped; give a threshold"
            )

    @classmethod
    def of(cls, custom_config: Mapping[str, Any]) -> ServingOptions:
        """Those that a Trainer is given as JSON; the defaults where it is given none."""
        return cls.model_validate_json(custom_config.get("serving", "{}"))


Objective = Literal["auc", "accuracy", "cross_entropy"]
DIRECTIONS: dict[Objective, Literal["min", "max"]] = {"auc": "max", "accuracy": "max", "cross_entropy": "min"}


class Candidates(BaseModel):
    """The values of an option that trials may have: those of a list, or the numbers of a range.

    Attributes:
        values: the list; a config has it alone, without this key.
        min: the first number of the range.
        max: the last one.
        step: how far numbers are apart; without it, any number of the range is one, of an int option any whole number.
        sampling: `log` tries as many numbers between 0.001 and 0.01 as between 0.01 and 0.1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    values: tuple[Any, ...] | None = None
    min: float | None = None
    max: float | None = None
    step: float | None = Field(None, gt=0)
    sampling: Literal["linear", "log"] = "linear"

    @model_validator(mode="before")
    @classmethod
    def _list_alone(cls, content: Any) -> Any:
        if not isinstance(content, list | dict):
            raise ValueError("expected a list of values or a range, {min: 0.001, max: 0.1, sampling: log}")
        return {"values": content} if isinstance(content, list) else content

    @model_validator(mode="after")
    def _check(self) -> Candidates:
        if self.values is not None:
            if len(self.values) < 2 or (self.min, self.max, self.step) != (None, None, None):
                raise ValueError("expected two values at least, or else a range of min and max")
            return self
        if self.min is None or self.max is None or self.min >= self.max:
            raise ValueError("expected min and a larger max")
        if self.sampling == "log" and (self.min <= 0 or self.step):
            raise ValueError("sampling: log takes a min above 0 and no step")
        return self

    @property
    def examples(self) -> tuple[Any, ...]:
        """Values that stand for all: those of the list, or the ends of the range."""
        return (self.min, self.max) if self.values is None else self.values


class TunerOptions(BaseModel):
    """A search for the trainer's options that suit the data best, by one of keras-tuner's methods.

    Attributes:
        space: option of the trainer, `augmentation.crop` for one inside of another -> its candidates.
        method: `random` draws values; `bayesian` draws some and then goes where a Gaussian process expects the best;
            `hyperband` gives many trials few epochs and the best of them more.
        trials: how many there are at most, for random and bayesian; by default 10.
        epochs: what the best trials of hyperband get; by default the trainer's.
        objective: what is compared, of examples that the trial did not learn from; None stands for the task's default.
        held_out_share: how much of the training split is held out for it. The eval split has no part in the search: it
            tells later whether the model may go live, and would flatter what was chosen by it.
        seed: of the draws and of what is held out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    space: dict[str, Candidates] = Field(min_length=1)
    method: Literal["random", "bayesian", "hyperband"] = "random"
    trials: int | None = Field(None, ge=1)
    epochs: int | None = Field(None, ge=2)
    objective: Objective | None = None
    held_out_share: float = Field(0.2, gt=0, lt=1)
    seed: int = Field(0, ge=0)

    @field_validator("space")
    @classmethod
    def _no_seed(cls, space: dict[str, Candidates]) -> dict[str, Candidates]:
        if "seed" in space:
            raise ValueError("seed is no hyperparameter: the best of several seeds is the luckiest")
        return space

    @model_validator(mode="after")
    def _check_effort(self) -> TunerOptions:
        if self.method == "hyperband" and self.trials is not None:
            raise ValueError("trials: hyperband's number of trials follows from epochs; give that instead")
        if self.method != "hyperband" and self.epochs is not None:
            raise ValueError("epochs is for method: hyperband; the trials of others take the trainer's epochs")
        if self.method == "hyperband" and "epochs" in self.space:
            raise ValueError("space: method: hyperband gives each trial its epochs; take epochs out of the space")
        return self

    def shortened(self) -> Self:
        """A search of two trials or epochs."""
        few = {"epochs": 2} if self.method == "hyperband" else {"trials": min(self.trials or 2, 2)}
        return self.model_copy(update=few)

    def check(self, trainer: Any, fixed: frozenset[str]) -> None:
        """See that trials can be made from the trainer's options.

        Args:
            trainer: the options, as the config has them.
            fixed: options that other steps of the run depend on.

        Raises:
            ValueError: a name is none of an option, or an option refuses a value; the message says which.
        """
        for name, candidates in self.space.items():
            if name.split(".")[0] in fixed:
                raise ValueError(f"tuner.space.{name}: other steps follow trainer.{name}; make a run for each value")
            kind = option_type(trainer, name)
            if candidates.values is None and kind not in (int, float):
                raise ValueError(f"tuner.space.{name}: trainer.{name} is no number; list its values")
        tried = {"epochs": (1, self.epochs or trainer.epochs)} if self.method == "hyperband" else {}
        tried |= {name: candidates.examples for name, candidates in self.space.items()}
        first = {name: examples[0] for name, examples in tried.items()}
        for name, examples in tried.items():
            for value in examples:
                try:
                    tuned_options(trainer, {**first, name: value})
                except ValidationError as error:
                    where = f"tuner.space.{name}" if name in self.space else f"tuner.method: {self.method}"
                    raise ValueError(f"{where}: {_refusal(error, name, value)}") from None


def _refusal(error: ValidationError, name: str, value: Any) -> str:
    detail = error.errors()[0]
    refuser = ".".join(str(part) for part in detail["loc"] if isinstance(part, str)) or name
    return f"trainer.{refuser} refuses {value!r}: {detail['msg'].removeprefix('Value error, ')}"
