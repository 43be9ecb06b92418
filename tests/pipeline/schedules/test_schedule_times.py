"""Cron expressions, and the times that they stand for."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta

import pytest
from cronsim import CronSim
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.options import ScheduleOptions, ScheduleWindow
from pipeline.schedules.cron import parse_cron_expression
from pipeline.schedules.daemon import next_due


def due_times(options: ScheduleOptions, after: datetime, count: int) -> list[datetime]:
    times: list[datetime] = []
    for _ in range(count):
        after = next_due(options, after)
        times.append(after)
    return times


def by_the_clock(cron: str, zone: str, after: datetime, count: int) -> list[str]:
    options = ScheduleOptions(cron=cron, time_zone=zone)
    return [time.astimezone(options.zone).strftime("%d %H:%M%z") for time in due_times(options, after, count)]


def item(lowest: int, highest: int) -> st.SearchStrategy[str]:
    number = st.integers(lowest, highest)
    pair = st.tuples(number, number).filter(lambda ends: ends[0] != ends[1]).map(sorted)
    return st.one_of(
        number.map(str),
        pair.map(lambda ends: f"{ends[0]}-{ends[1]}"),
        st.tuples(pair, st.integers(1, 9)).map(lambda given: f"{given[0][0]}-{given[0][1]}/{given[1]}"),
    )


def field(lowest: int, highest: int) -> st.SearchStrategy[str]:
    return st.one_of(
        st.just("*"), st.just("*/3"), st.lists(item(lowest, highest), min_size=1, max_size=3).map(",".join)
    )


@settings(max_examples=150, deadline=None)
@given(st.tuples(field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 7)))
def test_times_are_those_of_another_implementation_of_cron(fields):
    cron = " ".join(fields)
    start = datetime(2026, 1, 30, 12, 34, tzinfo=UTC)
    try:
        options = ScheduleOptions(cron=cron)
    except ValueError:
        assume(False)
    expected = CronSim(cron, start)
    canonical = CronSim(options.expression.text, start)
    for time in due_times(options, start, 4):
        assert time == next(expected) == next(canonical)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0 3 * * *", "0 3 * * *"),
        ("*/15 1,2,3 1 JAN-mar Sun", "*/15 1-3 1 1-3 0"),
        ("0 0 * * 5-7", "0 0 * * 0,5-6"),
        ("0 0 1 1 0-7", "0 0 1 1 0-6"),
        ("1-9/4 0 * * mon,wed", "1,5,9 0 * * 1,3"),
    ],
)
def test_an_expression_is_written_in_numbers_that_every_cron_reads_alike(text, canonical):
    assert parse_cron_expression(text).text == canonical


def test_the_day_of_the_month_or_that_of_the_week_suffices():
    times = due_times(ScheduleOptions(cron="0 0 13 * fri"), datetime(2026, 3, 1, tzinfo=UTC), 5)
    assert [time.day for time in times] == [6, 13, 20, 27, 3]
    times = due_times(ScheduleOptions(cron="0 0 14 * fri"), datetime(2026, 3, 1, tzinfo=UTC), 5)
    assert [time.day for time in times] == [6, 13, 14, 20, 27]


SPRING = datetime(2026, 3, 28, 22, 10, tzinfo=UTC)
AUTUMN = datetime(2026, 10, 24, 21, 10, tzinfo=UTC)


def test_a_daily_run_comes_once_on_each_day_that_changes_to_and_from_summer_time():
    spring = by_the_clock("30 2 * * *", "Europe/Berlin", SPRING, 3)
    assert spring == ["29 03:30+0200", "30 02:30+0200", "31 02:30+0200"]
    autumn = by_the_clock("30 2 * * *", "Europe/Berlin", AUTUMN, 3)
    assert autumn == ["25 02:30+0200", "26 02:30+0100", "27 02:30+0100"]


def test_times_of_the_hour_that_is_left_out_are_not_lost_after_an_earlier_one():
    assert by_the_clock("30 1,2 * * *", "Europe/Berlin", SPRING, 3) == [
        "29 01:30+0100",
        "29 03:30+0200",
        "30 01:30+0200",
    ]
    assert by_the_clock("30 2,3 * * *", "Europe/Berlin", SPRING, 2) == ["29 03:30+0200", "30 02:30+0200"]
    # There the clock goes forward by half an hour, from 2:00 to 2:30.
    at = by_the_clock("15,40 2 * * *", "Australia/Lord_Howe", datetime(2026, 10, 3, 14, tzinfo=UTC), 3)
    assert at == ["04 02:40+1100", "04 02:45+1100", "05 02:15+1100"]


def test_what_runs_every_half_hour_goes_on_doing_so_while_clocks_change():
    for start in (SPRING, AUTUMN):
        times = due_times(ScheduleOptions(cron="*/30 * * * *", time_zone="Europe/Berlin"), start, 12)
        assert {later - earlier for earlier, later in itertools.pairwise(times)} == {timedelta(minutes=30)}


def test_runs_are_due_on_the_days_of_the_window_only_by_the_clock_of_its_zone():
    window = ScheduleWindow(start=date(2026, 7, 1), end=date(2026, 7, 2))
    options = ScheduleOptions(cron="0 0,23 * * *", time_zone="America/New_York", window=window)
    times = due_times(options, datetime(2026, 1, 1, tzinfo=UTC), 4)
    assert [time.isoformat() for time in times] == [
        "2026-07-01T04:00:00+00:00",
        "2026-07-02T03:00:00+00:00",
        "2026-07-02T04:00:00+00:00",
        "2026-07-03T03:00:00+00:00",
    ]
    assert next_due(options, times[-1]) is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"cron": "0 3 * *"}, "expected five fields .* found 4"),
        ({"cron": "@daily"}, "expected five fields .* found 1"),
        ({"cron": "60 * * * *"}, "minute: expected 0 to 59; received '60'"),
        ({"cron": "0 0 * foo *"}, "month: expected 1 to 12, or a name such as jan; received 'foo'"),
        ({"cron": "0 0 * * fri-mon"}, "day of week 'fri-mon': fri comes after mon"),
        ({"cron": "5/10 * * * *"}, "a step needs a range; write 5-59/10"),
        ({"cron": "*/0 * * * *"}, "a step is at least 1"),
        ({"cron": "0 0 L * *"}, "day of month: expected 1 to 31; received 'L'"),
        ({"cron": "0 0 30,31 feb *"}, "day of month '30,31' never comes in month 'feb'"),
        ({"cron": "0 0 */2 * mon"}, "cron programs disagree"),
        ({"cron": "0 3 * * *", "time_zone": "Europe/Berln"}, "expected the IANA name of a time zone"),
        ({"cron": "0 3 * * *", "time_zone": "../etc"}, "expected the IANA name of a time zone"),
        ({"cron": "0 3 * * *", "overlap": "both"}, "'skip' or 'queue'"),
        ({"cron": "0 3 * * *", "window": {"start": "2027-01-02", "end": "2027-01-01"}}, "comes after end 2027-01-01"),
        ({"catch_up": "all"}, "cron is missing"),
    ],
)
def test_what_cannot_be_meant_is_named(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        ScheduleOptions(**options)
