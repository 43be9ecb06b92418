"""What an evaluation measures and demands."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Metric = Literal["accuracy", "auc", "cross_entropy"]


class EvaluationOptions(BaseModel):
    """Thresholds over the eval split; a model that misses one is not blessed, and so not published.

    Attributes:
        at_least: lower bounds by metric. `auc` is the area under the ROC curve, for more than two classes the mean of
            one against the rest.
        at_most: upper bounds by metric.
        may_worsen_by: how much worse than the model served now a metric may be; below 0, it must be better by so much.
            Holds from the second version on.
        slices: groups of columns; metrics are also reported for each combination of their values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    at_least: dict[Metric, float] = {}
    at_most: dict[Metric, float] = {}
    may_worsen_by: dict[Metric, float] = {}
    slices: tuple[tuple[str, ...], ...] = ()

    @property
    def has_bounds(self) -> bool:
        """Whether a metric is compared with a number of the config."""
        return bool(self.at_least or self.at_most)

    @property
    def has_thresholds(self) -> bool:
        """Whether a metric is compared with anything at all."""
        return self.has_bounds or bool(self.may_worsen_by)
