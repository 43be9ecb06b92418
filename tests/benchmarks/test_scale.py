"""Time and memory by the number of items, as figures."""

from __future__ import annotations

import pytest

from benchmarks.harness.measurement import Goal
from benchmarks.scale import Scale, growth


def test_an_item_stands_beside_one_of_the_size_before_and_goals_hold_for_the_last_size():
    found = [Scale(10, {"read": 1.0}, 100.0), Scale(100, {"read": 20.0}, 150.0), Scale(1000, {"read": 210.0}, 150.0)]

    figures = growth("rows", found, Goal(1.1), Goal(149, of="value"))

    assert [(each.name, each.value, each.ratio, each.beside, each.reaches_goal) for each in figures] == [
        ("10 rows: read", 1.0, None, "", None),
        ("10 rows: peak memory", 100.0, None, "", None),
        ("100 rows: read", 20.0, pytest.approx(2.0), "each of 10", None),
        ("100 rows: peak memory", 150.0, pytest.approx(1.5), "10 rows", None),
        ("1,000 rows: read", 210.0, pytest.approx(1.05), "each of 100", True),
        ("1,000 rows: peak memory", 150.0, pytest.approx(1.0), "100 rows", False),
    ]
