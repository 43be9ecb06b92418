"""Data that arrive in spans, such as a folder a day."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.divergence_bounds import DivergenceBounds

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
