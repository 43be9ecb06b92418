"""Adam with one pass over each weight."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from trainers.fitting import FusedAdam

STEPS = 6


def trained(optimizer: keras.optimizers.Optimizer) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights, and the optimizer's own variables, after some steps from the same beginning."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input([5]), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(3, activation="softmax")]
    )
    model.compile(optimizer, keras.losses.CategoricalCrossentropy(), jit_compile=False)
    chance = np.random.default_rng(2)
    for _ in range(STEPS):
        model.train_on_batch(chance.normal(size=[8, 5]), np.eye(3)[chance.integers(0, 3, 8)])
    return model.get_weights(), [variable.numpy() for variable in optimizer.variables]


def test_each_step_is_that_of_keras_with_a_step_size_that_decays():
    options = {"learning_rate": keras.optimizers.schedules.CosineDecay(0.05, STEPS), "beta_1": 0.8, "epsilon": 1e-4}
    weights, state = trained(FusedAdam(**options))
    expected_weights, expected_state = trained(keras.optimizers.Adam(**options))
    for ours, theirs in zip([*weights, *state], [*expected_weights, *expected_state], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert state[0] == STEPS
