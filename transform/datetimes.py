"""Dates and times in the graph: read from text or from numbers, and taken apart by the Gregorian calendar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from serving.signatures.common import is_missing
from transform.columns import (
    ABBREVIATED,
    FIELDS,
    ISO_8601,
    MONTHS,
    NUMERIC_FIELDS,
    SEPARATOR,
    Column,
    DatetimePattern,
    datetime_pattern,
)

DAY = 86_400
# 0001-01-01T00:00:00 and 9999-12-31T23:59:59, in seconds since 1970.
FIRST_SECOND = -62_135_596_800
LAST_SECOND = 253_402_300_799
UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000}

# From 1 March of year 0 to 1970-01-01. Years are counted from March, so that the leap day is the last of a year.
_DAYS_TO_1970 = 719_468
_DAYS_OF_400_YEARS = 146_097
# Of two-digit years, those from here on are of the 20th century, as POSIX has it.
_FIRST_SHORT_YEAR = 69


@dataclass(frozen=True)
class Datetimes:
    """A column of points in time.

    Attributes:
        seconds: int64 [batch], since 1970-01-01T00:00:00 UTC; 0 where there is none.
        missing: bool [batch].
        unreadable: bool [batch]: not missing, and no point in time of the years 1 to 9999.
    """

    seconds: tf.Tensor
    missing: tf.Tensor
    unreadable: tf.Tensor


def read_datetimes(values: tf.Tensor, column: Column) -> Datetimes:
    """The points in time of a column, [batch] of any dtype.

    Numbers are whole units since 1970 (the rest of a unit does not count), or without a unit, as 20260131, what
    `formats` says of their digits.
    """
    missing = is_missing(values)
    if column.unit:
        seconds, readable = _seconds_of_numbers(values, UNITS[column.unit])
    else:
        texts = values if values.dtype == tf.string else tf.strings.as_string(tf.cast(values, tf.int64))
        seconds, readable = seconds_of_texts(texts, column.formats)
    known = readable & ~missing
    return Datetimes(tf.where(known, seconds, tf.zeros_like(seconds)), missing, ~readable & ~missing)


def _seconds_of_numbers(values: tf.Tensor, units_per_second: int) -> tuple[tf.Tensor, tf.Tensor]:
    first, last = FIRST_SECOND * units_per_second, (LAST_SECOND + 1) * units_per_second
    readable = (values >= tf.constant(first, values.dtype)) & (values < tf.constant(last, values.dtype))
    # What is not finite, or beyond int64, has no whole number.
    whole = tf.cast(tf.floor(values) if values.dtype.is_floating else values, tf.int64)
    return tf.where(readable, whole, tf.zeros_like(whole)) // units_per_second, readable


# A function of its own, as is the calendar: tf.Transform traces the preprocessing several times, these once.
@tf.function(autograph=False, reduce_retracing=True)
def seconds_of_texts(texts: tf.Tensor, formats: Sequence[str]) -> tuple[tf.Tensor, tf.Tensor]:
    """int64 [batch], the seconds since 1970 in UTC, and bool [batch], whether the text says a point in time.

    A time without an offset counts as UTC.

    Args:
        texts: string [batch], with or without blanks around.
        formats: of strptime, in any of which a text may be, the first that fits counts; ISO 8601 where there is none.
    """
    texts = tf.strings.lower(tf.strings.strip(texts))
    patterns = [datetime_pattern(format_) for format_ in formats] or [ISO_8601]
    read = [_seconds_of_pattern(texts, pattern) for pattern in patterns]
    seconds, readable = read[0]
    for of_next, fits in read[1:]:
        seconds = tf.where(readable, seconds, of_next)
        readable |= fits
    return seconds, readable


def _seconds_of_pattern(texts: tf.Tensor, pattern: DatetimePattern) -> tuple[tf.Tensor, tf.Tensor]:
    fits = tf.strings.regex_full_match(texts, pattern.pattern)
    rewritten = tf.strings.regex_replace(texts, pattern.pattern, pattern.rewrite)
    nothing = SEPARATOR * (len(FIELDS) - 1)
    fields = tf.strings.split(tf.where(fits, rewritten, nothing), SEPARATOR)
    by_field = tf.unstack(tf.reshape(fields.flat_values, [-1, len(FIELDS)]), axis=1)
    said = dict(zip(FIELDS, by_field, strict=True))
    # A zero in front makes a number of every field; the years have four digits at most.
    digits = tf.strings.join(["0", tf.stack(by_field[: len(NUMERIC_FIELDS)], axis=0)])
    number = dict(zip(NUMERIC_FIELDS, tf.unstack(tf.strings.to_number(digits, tf.int64)), strict=True))
    given = {name for name, text in zip(FIELDS, pattern.rewrite.split(SEPARATOR), strict=True) if text}

    year = number["year"] if "year" in given else _year_of_short(number["short_year"])
    month = number["month"] if "month" in given else tf.ones_like(year)
    if "month_name" in given:
        month = _month_of_name(said["month_name"])
    day = number["day"] if "day" in given else tf.ones_like(year)
    hour = number["hour"]
    if "half_day_hour" in given:
        hour = number["half_day_hour"] % 12 + 12 * tf.cast(tf.equal(said["half"], "pm"), tf.int64)
    seconds = days_since_1970(year, month, day) * DAY + hour * 3600 + number["minute"] * 60 + number["second"]
    if "offset" in given:
        seconds -= _offset_seconds(said["offset"])

    exists = (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= month_length(year, month))
    in_day = (hour < 24) & (number["minute"] < 60) & (number["second"] < 60)
    # An offset may lead out of the years that the calendar has.
    return seconds, fits & exists & in_day & (seconds >= FIRST_SECOND) & (seconds <= LAST_SECOND)


def _year_of_short(year: tf.Tensor) -> tf.Tensor:
    return year + tf.where(year >= _FIRST_SHORT_YEAR, tf.constant(1900, tf.int64), tf.constant(2000, tf.int64))


def _month_of_name(names: tf.Tensor) -> tf.Tensor:
    """int64 [batch]: 1 to 12; names are in lower case, whole or abbreviated."""
    known = tf.constant([month[:ABBREVIATED] for month in MONTHS])
    # A text that did not fit has no name, which is too short to be cut.
    abbreviated = tf.strings.substr(tf.strings.join([names, " " * ABBREVIATED]), 0, ABBREVIATED)
    return tf.argmax(tf.cast(tf.equal(abbreviated[:, None], known), tf.int32), axis=1) + 1


def _offset_seconds(offsets: tf.Tensor) -> tf.Tensor:
    """int64 [batch]: of "+02:00", "+0200", "+02", and 0 of "z" and ""."""
    digits = tf.strings.regex_replace(offsets, "[^0-9]", "")
    hours_and_minutes = tf.strings.to_number(tf.strings.substr(tf.strings.join([digits, "0000"]), 0, 4), tf.int64)
    seconds = hours_and_minutes // 100 * 3600 + hours_and_minutes % 100 * 60
    return tf.where(tf.strings.regex_full_match(offsets, "-.*"), -seconds, seconds)


def days_since_1970(year: tf.Tensor, month: tf.Tensor, day: tf.Tensor) -> tf.Tensor:
    """int64, of the shape of the three, int64: the days from 1970-01-01 to a date of the Gregorian calendar."""
    year = year - tf.cast(month <= 2, tf.int64)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return 365 * year + year // 4 - year // 100 + year // 400 + day_of_year - _DAYS_TO_1970


def month_length(year: tf.Tensor, month: tf.Tensor) -> tf.Tensor:
    """int64, of the shape of both: how many days the month has; of one that is none, any number."""
    leap = tf.equal(year % 4, 0) & (tf.not_equal(year % 100, 0) | tf.equal(year % 400, 0))
    lengths = tf.constant([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], tf.int64)
    return tf.gather(lengths, (month - 1) % 12) + tf.cast(leap & tf.equal(month, 2), tf.int64)


@dataclass(frozen=True)
class CalendarFields:
    """What the calendar says of points in time: int64 of their shape each.

    Attributes:
        year: 1 to 9999.
        month: 1 to 12.
        day: of the month, 1 to 31.
        weekday: 0 is Monday.
        second: of the day, 0 to 86,399.
        days: since 1970-01-01.
    """

    year: tf.Tensor
    month: tf.Tensor
    day: tf.Tensor
    weekday: tf.Tensor
    second: tf.Tensor
    days: tf.Tensor


def calendar_fields(seconds: tf.Tensor) -> CalendarFields:
    """The calendar's fields of seconds since 1970, int64 of any shape.

    By Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    """
    days = seconds // DAY
    shifted = days + _DAYS_TO_1970
    era = shifted // _DAYS_OF_400_YEARS
    day_of_era = shifted % _DAYS_OF_400_YEARS
    # Leap days so far: one in 4 years, none in 100, one in 400.
    leap_days = day_of_era // 1460 - day_of_era // 36_524 + day_of_era // 146_096
    year_of_era = (day_of_era - leap_days) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    month = (month_from_march + 2) % 12 + 1
    return CalendarFields(
        year=era * 400 + year_of_era + tf.cast(month <= 2, tf.int64),
        month=month,
        day=day_of_year - (153 * month_from_march + 2) // 5 + 1,
        weekday=(days + 3) % 7,  # 1970-01-01 was a Thursday
        second=seconds % DAY,
        days=days,
    )


@tf.function(autograph=False, reduce_retracing=True)
def datetime_numbers(seconds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """What becomes of points in time, int64 [batch, n] in seconds since 1970.

    Returns:
        float64 [batch, 2n]: the years, then the days since 1970 with their fraction.
        float64 [batch, 8n]: the sines and the cosines of the month, then those of the day of the month, of the day of
        the week, and of the time of day; a whole turn is a year, 31 days, a week, a day.
    """
    fields = calendar_fields(seconds)
    days = tf.cast(seconds, tf.float64) / DAY
    cycles = ((fields.month - 1, 12), (fields.day - 1, 31), (fields.weekday, 7), (fields.second, DAY))
    turns = [2 * math.pi * tf.cast(value, tf.float64) / length for value, length in cycles]
    return (
        tf.concat([tf.cast(fields.year, tf.float64), days], axis=1),
        tf.concat([wave(angle) for angle in turns for wave in (tf.sin, tf.cos)], axis=1),
    )
