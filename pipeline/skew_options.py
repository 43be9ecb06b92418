"""How far the requests to a model may lie from the data that it learned from."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

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
    maximum_of: dict[str, float | None] = {}

    @field_validator("maximum_of")
    @classmethod
    def _check_bounds(cls, bounds: dict[str, float | None]) -> dict[str, float | None]:
        for column, bound in bounds.items():
            if bound is not None and not 0 < bound <= 1:
                raise ValueError(f"the bound of {column!r} is {bound}; a divergence lies between 0 and 1")
        return bounds

    def bound(self, column: str, spans: SpanOptions | None) -> float | None:
        """The largest divergence of a column, None where it is not compared."""
        if column in self.maximum_of:
            return self.maximum_of[column]
        if spans is not None and "maximum" not in self.model_fields_set:
            return spans.drift_bound(column)
        return self.maximum
