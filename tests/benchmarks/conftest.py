"""A result to change a part of."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.harness.results import Machine, Measurement, Outcome, Results

MACHINE = Machine("Some processor (avx2)", 2, 23.5, "Linux 6.1", {"python": "3.11.2", "tfx": "1.21.0"})


@pytest.fixture
def results() -> Callable[..., Results]:
    """Makes results of outcomes, or of the measurements of one benchmark called `speed`."""

    def make(*found: Outcome | Measurement) -> Results:
        measurements = tuple(each for each in found if isinstance(each, Measurement))
        outcomes = tuple(each for each in found if isinstance(each, Outcome))
        if measurements:
            outcomes += (Outcome("speed", "How fast", "measured", 61.7, measurements=measurements),)
        return Results("2026-01-31", False, MACHINE, outcomes)

    return make
