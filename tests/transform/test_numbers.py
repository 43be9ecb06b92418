"""Numbers and booleans of tables, value by value."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import norm
from sklearn.preprocessing import QuantileTransformer

from transform.numbers import boolean_values, ranks_among, signed_log


def test_the_logarithm_keeps_the_sign():
    values = tf.constant([0.0, 1.0, -1.0, np.e - 1, -1e30], tf.float64)
    np.testing.assert_allclose(signed_log(values), [0, np.log(2), -np.log(2), 1, -np.log(1e30)], rtol=1e-12)


def middle_ranks(quantiles: np.ndarray, values: np.ndarray) -> np.ndarray:
    shape = [1, -1]
    return ranks_among(
        tf.reshape(tf.constant(quantiles, tf.float32), shape), tf.reshape(tf.constant(values, tf.float32), shape)
    ).numpy()[0]


@pytest.mark.parametrize("decimals", [9, 1])
def test_ranks_are_those_of_scikit_learn_with_the_same_quantiles(decimals):
    chance = np.random.default_rng(0)
    # Rounded, many values share a quantile; the two ends are alone.
    training = np.concatenate([np.round(chance.lognormal(size=5000), decimals), [-1, 500]]).astype(np.float32)
    theirs = QuantileTransformer(n_quantiles=1000, output_distribution="uniform", subsample=None)
    theirs.fit(training[:, None])
    asked = np.concatenate([training, chance.lognormal(size=1000).astype(np.float32), [-5, 1e6]])
    expected = theirs.transform(asked[:, None])[:, 0]
    np.testing.assert_allclose(middle_ranks(theirs.quantiles_[:, 0], asked), expected, atol=2e-5)


def test_a_value_that_many_rows_have_gets_the_middle_of_their_ranks_at_the_ends_too():
    quantiles = np.array([0, 0, 0, 1, 2, 3, 3])
    ranks = middle_ranks(quantiles, np.array([-1, 0, 0.5, 1, 2, 3, 4]))
    np.testing.assert_allclose(ranks, [0, 1 / 6, 2.5 / 6, 3 / 6, 4 / 6, 5.5 / 6, 1], atol=1e-6)
    assert middle_ranks(np.array([7.0, 7.0, 7.0]), np.array([6, 7, 8])).tolist() == [0, 0.5, 1]


def test_the_normal_quantiles_are_scipys():
    shares = np.array([1e-7, 0.01, 0.5, 0.9, 1 - 1e-7])
    np.testing.assert_allclose(tf.math.ndtri(tf.constant(shares, tf.float64)), norm.ppf(shares), atol=1e-9)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (tf.constant(["true", " Yes ", "Y", "T", "ON", "1"]), [1] * 6),
        (tf.constant(["false", "NO", "n", " f", "off\n", "0"]), [0] * 6),
        (tf.constant(["", "  ", "maybe", "2", "truee", b"\xff"]), [None] * 6),
        (tf.constant([1, 0, 2, -1, -(2**31)], tf.int64), [1, 0, None, None, None]),
        (tf.constant([1.0, 0.0, 0.5, float("nan"), -1e38, float("inf")]), [1, 0, None, None, None, None]),
    ],
)
def test_booleans_are_read_in_all_their_spellings(values, expected):
    true, known = (flags.numpy().tolist() for flags in boolean_values(values))
    assert [int(one) if sure else None for one, sure in zip(true, known, strict=True)] == expected
    assert not any(one and not sure for one, sure in zip(true, known, strict=True))
