"""What an evaluation measures and demands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Metric = Literal["accuracy", "auc", "cross_entropy", "pr_auc", "precision", "recall", "f1", "specificity", "ece"]

# Those of one label against all others.
OF_POSITIVE: frozenset[Metric] = frozenset({"pr_auc", "precision", "recall", "f1", "specificity"})
LOWER_IS_BETTER: frozenset[Metric] = frozenset({"cross_entropy", "ece"})


class SliceOptions(BaseModel):
    """Parts of the eval split, and what a model has to reach in each of them.

    Attributes:
        columns: each combination of their values is a slice.
        at_least: lower bounds by metric, which hold for each slice by itself.
        at_most: upper bounds likewise.
        undecided: what becomes of a model of which a slice does not tell whether it keeps a bound, since the bound is
            within the confidence interval: it may `pass`, or not (`fail`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: tuple[str, ...] = Field(min_length=1)
    at_least: dict[Metric, float] = {}
    at_most: dict[Metric, float] = {}
    undecided: Literal["pass", "fail"] = "pass"

    @model_validator(mode="after")
    def _check(self) -> SliceOptions:
        if self.undecided != "pass" and not (self.at_least or self.at_most):
            raise ValueError("undecided is about bounds: give at_least or at_most beside it, at_least: {recall: 0.7}")
        return self


class ReplayOptions(BaseModel):
    """Logged requests that a candidate answers before it is published, and how far its answers may differ.

    Attributes:
        logs: files of PredictionLogs, folders of them or patterns, relative to the config file.
        may_flip: the largest share of rows, of all and of each slice, whose label may change or vanish.
        at_most_slower: how many times as long as the served model it may take; None for no bound.
        maximum_rows: of more rows the newest are replayed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    logs: tuple[str, ...] = Field(min_length=1)
    may_flip: float = Field(0.02, ge=0, le=1)
    at_most_slower: float | None = Field(None, gt=0)
    maximum_rows: int = Field(100_000, ge=1)

    @field_validator("logs", mode="before")
    @classmethod
    def _one_place(cls, logs: Any) -> Any:
        return [logs] if isinstance(logs, str) else logs


class TruthOptions(BaseModel):
    """Labels that come after the answers, and what is done where these turn out to be worse than they should be.

    Attributes:
        logs: files of PredictionLogs, folders of them or patterns, relative to the config file.
        labels: files of labels likewise, in the order in which they come.
        key: the columns that a row is known by; all inputs that the labels have, where none is named.
        at_least: the accuracy that the served version should have.
        when_below: what `ingraph retrain` does: it trains only where the accuracy fell (`retrain`), or it withdraws
            what fell before it goes on (`withdraw`); None: it does not look.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    logs: tuple[str, ...] = Field(min_length=1)
    labels: tuple[str, ...] = Field(min_length=1)
    key: tuple[str, ...] = ()
    at_least: float | None = Field(None, gt=0, lt=1)
    when_below: Literal["retrain", "withdraw"] | None = None

    @field_validator("logs", "labels", "key", mode="before")
    @classmethod
    def _one_place(cls, places: Any) -> Any:
        return [places] if isinstance(places, str) else places

    @model_validator(mode="after")
    def _check(self) -> TruthOptions:
        if self.when_below is not None and self.at_least is None:
            raise ValueError("when_below needs the accuracy that is expected: give at_least beside it, at_least: 0.85")
        return self


class EvaluationOptions(BaseModel):
    """Thresholds over the eval split; a model that misses one is not blessed, and so not published.

    Attributes:
        at_least: lower bounds by metric. `auc` is the area under the ROC curve, for more than two classes the mean of
            one against the rest; `ece` the expected calibration error; those of OF_POSITIVE are about the label that
            `preprocessing.label.positive` names, `pr_auc` as average precision.
        at_most: upper bounds by metric.
        may_worsen_by: how much worse than the model served now a metric may be; below 0, it must be better by so much.
            Holds from the second version on.
        slices: groups of columns; metrics are also reported for each combination of their values. A list of columns may
            stand for the whole.
        replay: logged requests that the model must answer much as the served one does; None for none. ReplayGate's.
        truth: labels that come later; None for none. Those of `ingraph truth`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    at_least: dict[Metric, float] = {}
    at_most: dict[Metric, float] = {}
    may_worsen_by: dict[Metric, float] = {}
    slices: tuple[SliceOptions, ...] = ()
    replay: ReplayOptions | None = None
    truth: TruthOptions | None = None

    @field_validator("slices", mode="before")
    @classmethod
    def _lists_of_columns(cls, slices: Any) -> Any:
        if not isinstance(slices, list | tuple):
            return slices
        return [{"columns": one} if isinstance(one, list | tuple) else one for one in slices]

    @property
    def has_bounds(self) -> bool:
        """Whether a metric is compared with a number of the config."""
        return bool(self.at_least or self.at_most or self.has_slice_bounds)

    @property
    def has_slice_bounds(self) -> bool:
        """Whether that is so in slices."""
        return any(one.at_least or one.at_most for one in self.slices)

    @property
    def has_thresholds(self) -> bool:
        """Whether a metric of all examples is compared with anything."""
        return bool(self.at_least or self.at_most or self.may_worsen_by)

    def check_positive(self, positive: str | None) -> None:
        """See that there is a positive label where a metric is about one.

        Raises:
            ValueError: there is none; the message names the metric.
        """
        if positive is not None:
            return
        places: list[tuple[str, Iterable[Metric]]] = [
            (key, getattr(self, key)) for key in ("at_least", "at_most", "may_worsen_by")
        ]
        places += [(f"slices.{key}", getattr(one, key)) for one in self.slices for key in ("at_least", "at_most")]
        for key, metrics in places:
            for metric in sorted(OF_POSITIVE & set(metrics)):
                raise ValueError(
                    f"evaluation.{key}.{metric} is about one label; name it: preprocessing.label.positive, as the "
                    "label is served"
                )
