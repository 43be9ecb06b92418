"""Formats of dates and times: strptime's directives as regular expressions, for a graph that has no strptime."""

from __future__ import annotations

import re
from dataclasses import dataclass

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
        raise ValueError(f"formats: {format_!r} has the directive {directive!r}, which is none of {known} and %%")
    return _DIRECTIVES[directive[1:]]


def _check_fields(captured: list[str], format_: str) -> None:
    said = [_SAYS.get(field, field) for field in captured]
    twice = next((field for field in said if said.count(field) > 1), None)
    if twice:
        raise ValueError(f"formats: {format_!r} says the {twice} twice; say it once")
    if "year" not in said:
        raise ValueError(f"formats: {format_!r} says no year; add %Y or %y")
    if ("half" in captured) != ("half_day_hour" in captured):
        raise ValueError(f"formats: {format_!r} has one of %I and %p; they go together, and %H stands for both")
