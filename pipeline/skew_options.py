"""How far the requests to a model may lie from the data that it learned from."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from pipeline.divergence_bounds import DivergenceBounds
from pipeline.span_options import SpanOptions


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
