"""Dates read in the graph, compared with Python's datetime."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from transform.columns import Column
from transform.datetimes import (
    FIRST_SECOND,
    LAST_SECOND,
    calendar_fields,
    datetime_numbers,
    read_datetimes,
    seconds_of_texts,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = st.builds(
    lambda minutes: timezone(timedelta(minutes=minutes)), st.integers(-23 * 60 - 59, 23 * 60 + 59)
) | st.just(UTC)
MOMENTS = st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29), timezones=ZONES)
MANY = settings(max_examples=60, deadline=None)


def seconds(moment: datetime) -> int:
    """Whole seconds since 1970; without an offset, in UTC."""
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - EPOCH) // timedelta(seconds=1)


def read(texts: list[str], *formats: str) -> list[int | None]:
    """Seconds since 1970, None for what cannot be read."""
    found, readable = seconds_of_texts(tf.constant(texts), formats)
    return [int(second) if fine else None for second, fine in zip(found.numpy(), readable.numpy(), strict=True)]


@MANY
@given(st.lists(MOMENTS, min_size=1, max_size=50))
def test_iso_8601_is_read_as_python_reads_it(moments):
    texts = []
    for number, moment in enumerate(moments):
        precision = ("minutes", "seconds", "milliseconds", "microseconds")[number % 4]
        before, after = " " * (number % 2), " " * (number % 3)
        written = moment.isoformat(sep="T "[number % 2], timespec=precision)
        texts.append(before + written + after)
        texts.append(moment.date().isoformat())
    assert read(texts) == [seconds(datetime.fromisoformat(text.strip())) for text in texts]


@MANY
@given(st.lists(st.text(alphabet="0129-+:T .,Z/", max_size=26), min_size=1, max_size=50))
def test_what_is_read_is_what_python_reads(texts):
    for text, found in zip(texts, read(texts), strict=True):
        if found is not None:
            assert found == seconds(datetime.fromisoformat(text.strip()))


FORMATS = [
    "%d.%m.%Y",
    "%m/%d/%Y %H:%M",
    "%Y%m%d",
    "%Y%m%d%H%M%S",
    "%d %b %Y",
    "%B %d, %Y",
    "%m/%d/%y",
    "%d-%m-%Y %I:%M %p",
    "%Y/%m/%d %H:%M:%S.%f",
    "%d/%b/%Y:%H:%M:%S %z",
    "%m %Y",
    "100%% on %d.%m.%Y (UTC)",
]


@pytest.mark.parametrize("format_", FORMATS)
def test_formats_are_read_as_strptime_reads_them(format_):
    chance = np.random.default_rng(0)
    moments = [datetime(1000, 1, 1, tzinfo=UTC) + timedelta(seconds=int(s)) for s in chance.integers(0, 2.8e11, 300)]
    texts = [moment.strftime(format_) for moment in moments]
    texts += (
        [text.upper() for text in texts[:20]] + [text.replace("0", "") for text in texts] + [*map(scrambled, texts)]
    )
    expected = [strptime(text, format_) for text in texts]
    assert sum(found is not None for found in expected) > 300
    assert read(texts, format_) == expected


def scrambled(text: str) -> str:
    """With two of its characters swapped: many such dates do not exist."""
    middle = len(text) // 3
    return text[:middle] + text[middle + 1 : middle + 2] + text[middle : middle + 1] + text[middle + 2 :]


def strptime(text: str, format_: str) -> int | None:
    try:
        return seconds(datetime.strptime(text.strip(), format_))
    except ValueError:
        return None


def test_the_first_format_that_fits_counts():
    texts = ["03/04/2026", "31/12/2026", "12/31/2026", "13/13/2026", "2026-04-03"]
    days = [(2026, 4, 3), (2026, 12, 31), (2026, 12, 31), None, None]
    expected = [seconds(datetime(*day)) if day else None for day in days]
    assert read(texts, "%d/%m/%Y", "%m/%d/%Y") == expected


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-30", "2025-02-29", "1900-02-29", "2026-04-31", "2026-13-01", "2026-00-10", "2026-01-00", "0000-01-01",
        "2026-01-31T24:00", "2026-01-31T10:60", "2026-01-31 10:00:60", "2026-01-31T10", "2026-01-31T10:00+24:00",
        "2026-01-31T10:00+02:60", "2026-1-31", "26-01-31", "20260131", "31.01.2026", "today", "|||", "2026-01-31x",
        "x2026-01-31", "2026-01-31\n2026-01-31", "2026-01-31+02:00", "12026-01-31", "\u0662\u0660\u0662\u0666-01-31",
        "0001-01-01T00:00+00:01", "9999-12-31T23:59-00:01", "-2026-01-31", "1e5", "NaN",
    ],
)  # fmt: skip
def test_what_is_no_date_is_unreadable_and_its_neighbours_are_not(text):
    found = read_datetimes(tf.constant(["2024-02-29", text, "2000-02-29"]), Column(kind="datetime"))
    assert found.unreadable.numpy().tolist() == [False, True, False]
    assert found.missing.numpy().tolist() == [False] * 3
    expected = [seconds(datetime(2024, 2, 29)), 0, seconds(datetime(2000, 2, 29))]
    assert found.seconds.numpy().tolist() == expected


@pytest.mark.parametrize("bad", [b"\xff\xfe", b"2026-01-31\xff", b"\x00", b"2026-01-31\x00", b"9" * 100_000])
def test_any_bytes_are_unreadable_at_most(bad):
    found = read_datetimes(tf.constant([bad, b"1970-01-02", b"", b"  "]), Column(kind="datetime"))
    assert found.unreadable.numpy().tolist() == [True, False, False, False]
    assert found.missing.numpy().tolist() == [False, False, True, True]
    assert found.seconds.numpy().tolist() == [0, 86_400, 0, 0]


@pytest.mark.parametrize(("unit", "per_second"), [("s", 1), ("ms", 1000), ("us", 1_000_000)])
def test_numbers_are_units_since_1970(unit, per_second):
    moments = [-1, 0, 1, FIRST_SECOND, LAST_SECOND, 1_700_000_000]
    values = [second * per_second for second in moments]
    values += [(FIRST_SECOND - 1) * per_second, (LAST_SECOND + 1) * per_second, -(2**63), 2**63 - 1, -(2**31)]
    found = read_datetimes(tf.constant(values, tf.int64), Column(kind="datetime", unit=unit))
    assert found.seconds.numpy().tolist() == [*moments, 0, 0, 0, 0, 0]
    assert found.unreadable.numpy().tolist() == [False] * 6 + [True] * 4 + [False]
    assert found.missing.numpy().tolist() == [False] * 10 + [True]


def test_parts_of_a_unit_do_not_count_and_floats_may_be_missing():
    values = tf.constant([1.5, -1.5, 1e30, -1e30, float("nan"), float("inf"), -1e38], tf.float32)
    found = read_datetimes(values, Column(kind="datetime", unit="s"))
    assert found.seconds.numpy().tolist() == [1, -2, 0, 0, 0, 0, 0]
    assert found.unreadable.numpy().tolist() == [False, False, True, True, False, False, False]
    assert found.missing.numpy().tolist() == [False] * 4 + [True] * 3


def test_whole_numbers_are_read_by_their_digits_where_formats_say_so():
    values = tf.constant([20260131, 20260230, -(2**31)], tf.int64)
    found = read_datetimes(values, Column(kind="datetime", formats=["%Y%m%d"]))
    assert found.seconds.numpy().tolist() == [seconds(datetime(2026, 1, 31)), 0, 0]
    assert found.unreadable.numpy().tolist() == [False, True, False]


def test_every_day_of_the_calendar_has_pythons_fields():
    first, last = date.min.toordinal(), date.max.toordinal()
    ordinals = [*range(first, last, 97), *range(first, first + 800), *range(last - 800, last + 1)]
    # Around each end of February, of all kinds of years.
    ordinals += [date(year, 3, 1).toordinal() + near for year in range(1, 10_000, 100) for near in (-2, -1, 0)]
    ordinals += [date(year, 3, 1).toordinal() + near for year in range(1896, 2110) for near in (-2, -1, 0)]
    days = [date.fromordinal(ordinal) for ordinal in ordinals]
    fields = calendar_fields((tf.constant(ordinals, tf.int64) - EPOCH.date().toordinal()) * 86_400 + 86_399)
    assert fields.year.numpy().tolist() == [day.year for day in days]
    assert fields.month.numpy().tolist() == [day.month for day in days]
    assert fields.day.numpy().tolist() == [day.day for day in days]
    assert fields.weekday.numpy().tolist() == [day.weekday() for day in days]
    assert fields.days.numpy().tolist() == [(day - EPOCH.date()).days for day in days]
    assert set(fields.second.numpy()) == {86_399}


def test_a_point_in_time_becomes_a_year_days_and_four_cycles():
    moments = [datetime(2026, 1, 31, 18, 0), datetime(1969, 12, 31, 6, 30), datetime(2024, 7, 1)]
    linear, cyclic = datetime_numbers(tf.constant([[seconds(moment)] for moment in moments], tf.int64))
    days = [seconds(moment) / 86_400 for moment in moments]
    np.testing.assert_allclose(linear, np.transpose([[2026, 1969, 2024], days]), rtol=1e-12)
    turns = np.array([[0, 30 / 31, 5 / 7, 0.75], [11 / 12, 30 / 31, 2 / 7, 6.5 / 24], [6 / 12, 0, 0, 0]]) * 2 * np.pi
    expected = np.stack([np.sin(turns), np.cos(turns)], axis=2).reshape(3, 8)
    np.testing.assert_allclose(cyclic, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"formats": ["%d.%m.%Q"]}, "'%d.%m.%Q' has the directive '%Q', which is none of %Y, %y, %m"),
        ({"formats": ["%d.%m.%Y %"]}, "has the directive '%', which is none of"),
        ({"formats": ["%d.%m"]}, "'%d.%m' says no year"),
        ({"formats": ["%d.%m.%y %Y"]}, "says the year twice"),
        ({"formats": ["%d.%d.%Y"]}, "says the day twice"),
        ({"formats": ["%Y %I:%M"]}, "one of %I and %p"),
        ({"formats": ["%Y"], "unit": "s"}, "formats is for dates that are written, unit for numbers"),
        ({"unit": "days"}, "Input should be 's', 'ms' or 'us'"),
        ({"buckets": 3}, "buckets goes with kind: quantiles or hash, not with datetime"),
    ],
)
def test_options_that_cannot_be_used_are_named(options, sentence):
    with pytest.raises(ValidationError) as refused:
        Column(kind="datetime", **options)
    assert sentence in str(refused.value)
