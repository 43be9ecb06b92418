"""Cron expressions of five fields: minute, hour, day of month, month, day of week.

What cron programs read differently is refused, the rest is written in a form that all of them read alike.
https://man7.org/linux/man-pages/man5/crontab.5.html
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass

_MONTHS = {name.upper(): number for number, name in enumerate(calendar.month_abbr) if name}
_WEEKDAYS = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"))}
_ITEM = re.compile(r"(?:(\*)|(\w+)(?:-(\w+))?)(?:/(\d+))?")
_MONTH_LENGTHS = {month: 29 if month == 2 else calendar.monthrange(2024, month)[1] for month in range(1, 13)}


@dataclass(frozen=True)
class CronField:
    """A field.

    Attributes:
        text: in numbers only, Sunday is 0.
        values: what it matches, ascending.
    """

    text: str
    values: tuple[int, ...]

    @property
    def restricts(self) -> bool:
        """Whether it matches some values only."""
        return self.text != "*"


@dataclass(frozen=True)
class CronExpression:
    """A cron expression; where both `day` and `weekday` restrict, a date needs to match only one of them."""

    minute: CronField
    hour: CronField
    day: CronField
    month: CronField
    weekday: CronField

    @property
    def text(self) -> str:
        """The five fields in numbers, Sunday is 0."""
        return " ".join(field.text for field in (self.minute, self.hour, self.day, self.month, self.weekday))

    @property
    def either_day(self) -> bool:
        """Whether the day of the month or the day of the week suffices."""
        return self.day.restricts and self.weekday.restricts


def parse_cron_expression(text: str) -> CronExpression:
    """Parse an expression; names of months and days are three letters.

    Raises:
        ValueError: it is no such expression, matches no time at all, or cron programs differ about it.
    """
    fields = text.split()
    if len(fields) != 5:
        raise ValueError(
            f"expected five fields (minute, hour, day of month, month, day of week), `0 3 * * mon` for example; "
            f"found {len(fields)}"
        )
    minute, hour, day, month, weekday = fields
    expression = CronExpression(
        minute=_parse_field("minute", minute, 0, 59),
        hour=_parse_field("hour", hour, 0, 23),
        day=_parse_field("day of month", day, 1, 31),
        month=_parse_field("month", month, 1, 12, _MONTHS),
        weekday=_parse_field("day of week", weekday, 0, 7, _WEEKDAYS),
    )
    if expression.either_day and (day.startswith("*") or weekday.startswith("*")):
        raise ValueError(
            f"day of month {day!r} together with day of week {weekday!r}: cron programs disagree whether one or both "
            "must match; list the days without a star"
        )
    if not expression.weekday.restricts and all(
        expression.day.values[0] > _MONTH_LENGTHS[month] for month in expression.month.values
    ):
        raise ValueError(f"day of month {day!r} never comes in month {month!r}")
    return expression


def _parse_field(name: str, text: str, lowest: int, highest: int, names: dict[str, int] | None = None) -> CronField:
    values: set[int] = set()
    for item in text.split(","):
        match = _ITEM.fullmatch(item)
        if not match:
            raise ValueError(
                f"{name} {text!r}: expected *, a number, a range as 1-5, a step as */15, or a list of these"
            )
        star, first, last, step = match.groups()
        low, high = (lowest, highest) if star else (_parse_number(name, first, lowest, highest, names),) * 2
        if last:
            high = _parse_number(name, last, lowest, highest, names)
        elif step and not star:
            raise ValueError(f"{name} {text!r}: a step needs a range; write {first}-{highest}/{step}")
        if low > high:
            raise ValueError(f"{name} {text!r}: {first} comes after {last}")
        if step and not int(step):
            raise ValueError(f"{name} {text!r}: a step is at least 1")
        values.update(range(low, high + 1, int(step or 1)))
    if names is _WEEKDAYS:
        values = {value % 7 for value in values}
    ordered = tuple(sorted(values))
    return CronField(text if text.startswith("*") and "," not in text else _ranges(ordered), ordered)


def _parse_number(name: str, text: str, lowest: int, highest: int, names: dict[str, int] | None) -> int:
    number = int(text) if text.isdecimal() else (names or {}).get(text.upper(), -1)
    if not lowest <= number <= highest:
        known = f", or a name such as {next(iter(names)).lower()}" if names else ""
        raise ValueError(f"{name}: expected {lowest} to {highest}{known}; received {text!r}")
    return number


def _ranges(values: tuple[int, ...]) -> str:
    """Ascending values as a list of numbers and ranges."""
    groups: list[list[int]] = []
    for value in values:
        if groups and value == groups[-1][-1] + 1:
            groups[-1].append(value)
        else:
            groups.append([value])
    return ",".join(str(group[0]) if len(group) == 1 else f"{group[0]}-{group[-1]}" for group in groups)
