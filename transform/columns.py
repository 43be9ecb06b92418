"""Columns of a table: their kinds, and the options of each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

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


# What a match is rewritten to, in this order, with a separator that is in none of them; "" for what a format lacks.
NUMERIC_FIELDS = ("year", "short_year", "month", "day", "hour", "half_day_hour", "minute", "second")
TEXT_FIELDS = ("month_name", "half", "offset")
FIELDS = NUMERIC_FIELDS + TEXT_FIELDS
SEPARATOR = "|"

MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
ABBREVIATED = 3

_OFFSET = r"[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?"
# As the standard library's _strptime: which digits are whose decides in formats such as %d%m%Y.
_DIRECTIVES = {
    "Y": ("year", r"\d{4}"),
    "y": ("short_year", r"\d{2}"),
    "m": ("month", r"1[0-2]|0[1-9]|[1-9]"),
    "b": ("month_name", "|".join(month[:ABBREVIATED] for month in MONTHS)),
    "B": ("month_name", "|".join(MONTHS)),
    "d": ("day", r"3[01]|[12]\d|0[1-9]|[1-9]"),
    "H": ("hour", r"2[0-3]|[01]\d|\d"),
    "I": ("half_day_hour", r"1[0-2]|0[1-9]|[1-9]"),
    "p": ("half", "am|pm"),
    "M": ("minute", r"[0-5]\d|\d"),
    "S": ("second", r"[0-5]\d|\d"),
    "f": ("", r"\d{1,6}"),
    "z": ("offset", f"z|{_OFFSET}"),
}
# Other ways to say a year, a month and an hour.
_SAYS = {"short_year": "year", "month_name": "month", "half_day_hour": "hour"}


@dataclass(frozen=True)
class DatetimePattern:
    """How texts of one format are taken apart.

    Attributes:
        pattern: a regular expression (RE2) of the whole text in lower case, without blanks around.
        rewrite: what tf.strings.regex_replace makes of it: FIELDS, SEPARATOR between them.
    """

    pattern: str
    rewrite: str

    @classmethod
    def of(cls, pattern: str, captured: list[str]) -> DatetimePattern:
        """A pattern whose groups hold these fields, in their order."""
        groups = {field: rf"\{number}" for number, field in enumerate(captured, start=1)}
        return cls(f"^(?:{pattern})$", SEPARATOR.join(groups.get(field, "") for field in FIELDS))


# A date, or a date and a time with or without seconds, their fraction and an offset from UTC.
ISO_8601 = DatetimePattern.of(
    rf"(\d{{4}})-(\d{{2}})-(\d{{2}})(?:[t ](\d{{2}}):(\d{{2}})(?::(\d{{2}})(?:[.,]\d+)?)?\s*(?:z|({_OFFSET}))?)?",
    ["year", "month", "day", "hour", "minute", "second", "offset"],
)


def datetime_pattern(format_: str) -> DatetimePattern:
    """The pattern of a format such as "%d.%m.%Y %H:%M".

    As datetime.strptime of the C locale: letters match in either case, blanks match one or more of them.

    Raises:
        ValueError: the format has an unknown directive, two that contradict each other, or no year.
    """
    parts, captured = [], []
    for directive, blanks, literal in re.findall(r"(%.?)|(\s+)|([^%\s]+)", format_, re.DOTALL):
        if directive == "%%":
            parts.append("%")
        elif directive:
            field, digits = _directive(directive, format_)
            parts.append(f"({digits})" if field else f"(?:{digits})")
            captured += [field] if field else []
        else:
            parts.append(r"\s+" if blanks else re.escape(literal.lower()))
    _check_fields(captured, format_)
    return DatetimePattern.of("".join(parts), captured)


def _directive(directive: str, format_: str) -> tuple[str, str]:
    if directive[1:] not in _DIRECTIVES:
        known = ", ".join(f"%{letter}" for letter in _DIRECTIVES)
        raise ValueError(f"{format_!r} has the directive {directive!r}, which is none of {known} and %%")
    return _DIRECTIVES[directive[1:]]


def _check_fields(captured: list[str], format_: str) -> None:
    said = [_SAYS.get(field, field) for field in captured]
    twice = next((field for field in said if said.count(field) > 1), None)
    if twice:
        raise ValueError(f"{format_!r} says the {twice} twice; say it once")
    if "year" not in said:
        raise ValueError(f"{format_!r} says no year; add %Y or %y")
    if ("half" in captured) != ("half_day_hour" in captured):
        raise ValueError(f"{format_!r} has one of %I and %p; they go together, and %H stands for both")
