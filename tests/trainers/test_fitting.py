"""Fitting: the optimizer, steps per execution, batches."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainers.fitting import FusedAdam, steps_per_execution
from trainers.splits import shuffled_batches

ADAM_STEPS = 6


def trained(optimizer: keras.optimizers.Optimizer) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights, and the optimizer's own variables, after some steps from the same beginning."""
    start = keras.initializers.GlorotUniform(seed=1)
    model = keras.Sequential(
        [
            keras.Input([5]),
            keras.layers.Dense(4, activation="tanh", kernel_initializer=start),
            keras.layers.Dense(3, activation="softmax", kernel_initializer=start),
        ]
    )
    model.compile(optimizer, keras.losses.CategoricalCrossentropy(), jit_compile=False)
    chance = np.random.default_rng(2)
    for _ in range(ADAM_STEPS):
        model.train_on_batch(chance.normal(size=[8, 5]), np.eye(3)[chance.integers(0, 3, 8)])
    return model.get_weights(), [variable.numpy() for variable in optimizer.variables]


def test_each_step_is_that_of_keras_with_a_step_size_that_decays():
    options = {
        "learning_rate": keras.optimizers.schedules.CosineDecay(0.05, ADAM_STEPS),
        "beta_1": 0.8,
        "epsilon": 1e-4,
    }
    weights, state = trained(FusedAdam(**options))
    expected_weights, expected_state = trained(keras.optimizers.Adam(**options))
    for ours, theirs in zip([*weights, *state], [*expected_weights, *expected_state], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert state[0] == ADAM_STEPS


@pytest.mark.parametrize(
    ("steps", "at_once"), [(1, 1), (8, 8), (32, 32), (33, 17), (64, 32), (81, 27), (83, 28), (1000, 32)]
)
def test_an_epoch_is_divided_into_executions_of_one_size(steps, at_once):
    assert steps_per_execution(steps) == at_once


def test_an_epoch_has_hardly_more_steps_than_it_needs():
    for steps in range(1, 2000):
        executions = -(-steps // steps_per_execution(steps))
        assert 0 <= executions * steps_per_execution(steps) - steps < executions


ROWS, BATCH = 1000, 32
STEPS = -(-ROWS // BATCH)


def ragged_rows() -> tf.RaggedTensor:
    """Row n is n + 1, n times or so."""
    lengths = np.random.default_rng(0).integers(1, 200, ROWS)
    return tf.RaggedTensor.from_row_lengths(np.repeat(np.arange(ROWS) + 1, lengths), lengths)


def test_each_pass_has_every_row_once_in_an_order_of_its_own():
    features = {"number": np.arange(ROWS)}
    batches = shuffled_batches((features, np.arange(ROWS)), BATCH, 0)

    passes = [[], []]
    for number, (columns, labels) in enumerate(batches.take(2 * STEPS)):
        assert columns["number"].numpy().tolist() == labels.numpy().tolist()
        passes[number // STEPS].append(labels.numpy())
    first, second = (np.concatenate(batches) for batches in passes)
    assert sorted(first) == sorted(second) == list(range(ROWS))
    assert not np.array_equal(first, second)


def test_ragged_rows_come_once_with_their_labels_and_nearly_without_filling():
    terms = ragged_rows()
    batches = list(shuffled_batches(({"terms": terms}, np.arange(ROWS)), BATCH, 0).take(STEPS))

    assert sorted(np.concatenate([labels.numpy() for _, labels in batches])) == list(range(ROWS))
    for columns, labels in batches:
        for row, label in zip(columns["terms"].numpy(), labels.numpy(), strict=True):
            assert row[row > 0].tolist() == terms[label].numpy().tolist()
    given = sum(columns["terms"].shape[0] * columns["terms"].shape[1] for columns, _ in batches)
    assert given < 1.15 * terms.flat_values.shape[0]  # twice as much in any order


def test_batches_of_short_and_of_long_rows_are_mixed():
    batches = shuffled_batches(({"terms": ragged_rows()}, np.arange(ROWS)), BATCH, 0).take(STEPS - 1)
    widths = [columns["terms"].shape[1] for columns, _ in batches]
    assert 5 < np.sum(np.diff(widths) < 0) < STEPS - 5
