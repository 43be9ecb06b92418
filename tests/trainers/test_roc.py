"""The area under the ROC curve, beside scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics

from trainers.roc import area_under_roc


def test_the_area_under_the_curve_counts_ties_half_and_weights_as_copies():
    source = np.random.default_rng(3)
    positive, scores = source.random(200) < 0.4, source.integers(0, 10, 200) / 10
    weights = source.integers(0, 4, (2, 200)).astype(np.float32)
    expected = [metrics.roc_auc_score(positive, scores, sample_weight=row) for row in weights]
    np.testing.assert_allclose(area_under_roc(positive, scores, weights), expected, rtol=1e-6)


def test_the_area_is_unknown_where_a_resample_has_one_kind_only():
    assert np.isnan(area_under_roc(np.array([True, False]), np.array([0.1, 0.2]), np.array([[1.0, 0.0]])))


@pytest.mark.parametrize("seed", range(5))
def test_without_weights_it_is_scikit_learns(seed):
    source = np.random.default_rng(seed)
    positive = source.random(500) < 0.3
    scores = np.round(source.normal(size=500) + positive, 1)
    np.testing.assert_allclose(area_under_roc(positive, scores), [metrics.roc_auc_score(positive, scores)], rtol=1e-12)
