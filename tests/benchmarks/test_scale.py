"""Time and memory by the number of items, as figures."""

from __future__ import annotations

import pytest

from benchmarks.harness.measurement import Goal
from benchmarks.scale import Scale, growth


def test_an_item_stands_beside_one_of_the_size_before_and_goals_hold_for_the_last_size():
    found = [
        Scale(10, {"look": 1.0, "read": 3.0}, 100.0),
        Scale(100, {"look": 20.0, "read": 20.0}, 150.0),
        Scale(1000, {"look": 300.0, "read": 120.0}, 150.0),
    ]

    figures = growth("rows", found, Goal(1.1), Goal(149, of="value"))

    assert [(each.name, each.value, each.ratio, each.beside, each.reaches_goal) for each in figures] == [
        ("10 rows: look", 1.0, None, "", None),
        ("10 rows: read", 3.0, None, "", None),
        ("10 rows: all steps", 4.0, None, "", None),
        ("10 rows: peak memory", 100.0, None, "", None),
        ("100 rows: look", 20.0, pytest.approx(2.0), "each of 10", None),
        ("100 rows: read", 20.0, pytest.approx(2 / 3), "each of 10", None),
        ("100 rows: all steps", 40.0, pytest.approx(1.0), "each of 10", None),
        ("100 rows: peak memory", 150.0, pytest.approx(1.5), "10 rows", None),
        ("1,000 rows: look", 300.0, pytest.approx(1.5), "each of 100", None),
        ("1,000 rows: read", 120.0, pytest.approx(0.6), "each of 100", None),
        ("1,000 rows: all steps", 420.0, pytest.approx(1.05), "each of 100", True),
        ("1,000 rows: peak memory", 150.0, pytest.approx(1.0), "100 rows", False),
    ]
