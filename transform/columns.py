"""Columns of a table: their kinds, and the options of each."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from transform.datetime_formats import datetime_pattern

Kind = Literal[
    "z_score", "log", "quantile_normal", "quantiles", "boundaries", "boolean", "datetime",
    "categorical", "hash", "list", "text", "ignored",
]  # fmt: skip
Unit = Literal["s", "ms", "us"]

NUMERIC_KINDS = ("z_score", "log", "quantile_normal", "quantiles", "boundaries")
# One value of few in each row, so that combinations with other columns are categories too.
CROSSED_KINDS = ("boolean", "hash", "categorical", "quantiles", "boundaries")

# Option -> the kinds that have it.
_KINDS_OF = {
    "buckets": ("quantiles", "hash"),
    "boundaries": ("boundaries",),
    "formats": ("datetime",),
    "unit": ("datetime",),
    "separator": ("list",),
    "maximum_length": ("list", "text"),
    "word_ngrams": ("text",),
    "minimum_term_count": ("text",),
    "maximum_terms": ("text",),
}
# As in a table of texts alone.
TEXT_OPTIONS = tuple(option for option, kinds in _KINDS_OF.items() if "text" in kinds)
_DEFAULTS: dict[str, dict[str, Any]] = {
    "hash": {"buckets": 1024},
    "list": {"separator": "|", "maximum_length": 64},
    "text": {"word_ngrams": 2, "minimum_term_count": 2, "maximum_terms": 20_000, "maximum_length": 256},
}


class Column(BaseModel):
    """How one column is preprocessed; docs/tabular.md says what each kind becomes.

    Attributes:
        kind: numbers are `z_score` (scaled to mean 0 and variance 1), `log` (the same after sign(x) * ln(1 + |x|)),
            `quantile_normal` (mapped to a normal distribution by their rank), `quantiles` (cut into `buckets` of equal
            count) or `boundaries` (cut at given `boundaries`); others `boolean`, `datetime`, `categorical`, `hash`
            (categories, numbered by a hash), `list` (several categories in a cell), `text` or `ignored`.
        buckets: how many buckets `quantiles` and `hash` make.
        boundaries: where `boundaries` cuts, ascending; a value on a boundary belongs to the bucket above it.
        formats: of `datetime`, as strptime has them; the first that fits counts. ISO 8601 where none is given.
        unit: of a `datetime` that is a number: seconds, milliseconds or microseconds since 1970.
        separator: of `list`, between two categories.
        word_ngrams: of `text`: the longest sequence of words that is a term of its own.
        minimum_term_count: of `text`: how many texts of the training data must have a term for it to be known.
        maximum_terms: of `text`: how many terms are known at most, the most frequent ones.
        maximum_length: of `list` and `text`: how many different known categories or terms of a cell count at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    buckets: int | None = Field(None, ge=2)
    boundaries: tuple[float, ...] = ()
    formats: tuple[str, ...] = ()
    unit: Unit | None = None
    separator: str | None = Field(None, min_length=1)
    word_ngrams: int | None = Field(None, ge=1, le=5)
    minimum_term_count: int | None = Field(None, ge=1)
    maximum_terms: int | None = Field(None, ge=1)
    maximum_length: int | None = Field(None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        defaults = _DEFAULTS.get(given["kind"], {}) if given.get("kind") in get_args(Kind) else {}
        return given | {name: value for name, value in defaults.items() if given.get(name) is None}

    @field_validator("formats", mode="before")
    @classmethod
    def _one_format(cls, formats: Any) -> Any:
        return (formats,) if isinstance(formats, str) else formats

    @field_validator("formats")
    @classmethod
    def _check_formats(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        for format_ in formats:
            datetime_pattern(format_)
        return formats

    @model_validator(mode="after")
    def _check(self) -> Column:
        for option, kinds in _KINDS_OF.items():
            if getattr(self, option) not in (None, ()) and self.kind not in kinds:
                raise ValueError(f"{option} goes with kind: {' or '.join(kinds)}, not with {self.kind}")
        if self.kind == "quantiles" and self.buckets is None:
            raise ValueError("buckets goes with kind: quantiles; give their number, for example buckets: 4")
        if self.kind == "boundaries" and not self.boundaries:
            raise ValueError("boundaries goes with kind: boundaries; give them, for example boundaries: [30, 60]")
        if list(self.boundaries) != sorted(set(self.boundaries)):
            raise ValueError(f"boundaries must ascend, received {list(self.boundaries)}")
        if self.formats and self.unit:
            raise ValueError("formats is for dates that are written, unit for numbers since 1970; give one of them")
        return self

    @property
    def holds_numbers(self) -> bool:
        """Whether the column must hold numbers."""
        return self.kind in NUMERIC_KINDS or self.unit is not None
