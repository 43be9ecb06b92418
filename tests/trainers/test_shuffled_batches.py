"""Batches of rows in memory."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from trainers.splits import shuffled_batches

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
