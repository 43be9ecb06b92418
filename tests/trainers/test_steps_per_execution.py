"""Keras's executions end where an epoch ends."""

from __future__ import annotations

import pytest

from trainers.fitting import steps_per_execution


@pytest.mark.parametrize(
    ("steps", "at_once"), [(1, 1), (8, 8), (32, 32), (33, 17), (64, 32), (81, 27), (83, 28), (1000, 32)]
)
def test_an_epoch_is_divided_into_executions_of_one_size(steps, at_once):
    assert steps_per_execution(steps) == at_once


def test_an_epoch_has_hardly_more_steps_than_it_needs():
    for steps in range(1, 2000):
        executions = -(-steps // steps_per_execution(steps))
        assert 0 <= executions * steps_per_execution(steps) - steps < executions
