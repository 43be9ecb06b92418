"""The figures of a report, against values worked out by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from components.run_report.pages import common_examples, config_differences
from components.run_report.statistics import (
    EvalPredictions,
    calibration,
    class_results,
    confusion_matrix,
    metric_estimates,
    threshold_curve,
    weighted_auc,
    wilson_interval,
)


def predictions(examples: int = 400, classes: int = 3, seed: int = 0, skill: float = 1.5) -> EvalPredictions:
    """A model that knows something, and a baseline that knows less."""
    source = np.random.default_rng(seed)
    truth = source.integers(0, classes, examples)

    def model(strength: float) -> np.ndarray:
        logits = source.normal(size=(examples, classes)) + strength * np.eye(classes)[truth]
        return (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)

    labels = [f"class {number}" for number in range(classes)]
    ids = [f"{number:064x}" for number in range(examples)]
    return EvalPredictions(ids, labels, truth, model(skill), model(skill / 3))


def test_the_interval_of_a_share_is_wilsons():
    interval = wilson_interval(8, 10)
    assert (interval.value, round(interval.low, 4), round(interval.high, 4)) == (0.8, 0.4902, 0.9433)


@pytest.mark.parametrize(("count", "total"), [(0, 5), (5, 5), (1, 1)])
def test_the_interval_of_a_share_holds_the_share_and_stays_between_0_and_1(count, total):
    interval = wilson_interval(count, total)
    assert 0 <= interval.low <= count / total <= interval.high <= 1
    assert interval.high - interval.low > 0.3


def test_a_share_of_nothing_has_no_interval():
    assert wilson_interval(0, 0) is None


def test_the_area_under_the_curve_counts_ties_half_and_weights_as_copies():
    source = np.random.default_rng(3)
    positive, scores = source.random(200) < 0.4, source.integers(0, 10, 200) / 10
    weights = source.integers(0, 4, (2, 200)).astype(np.float32)
    expected = [metrics.roc_auc_score(positive, scores, sample_weight=row) for row in weights]
    np.testing.assert_allclose(weighted_auc(positive, scores, weights), expected, rtol=1e-6)


def test_the_area_is_unknown_where_a_resample_has_one_kind_only():
    assert np.isnan(weighted_auc(np.array([True, False]), np.array([0.1, 0.2]), np.array([[1.0, 0.0]])))


@pytest.mark.parametrize("classes", [2, 3])
def test_metrics_are_scikit_learns_and_lie_in_their_intervals(classes):
    found = predictions(classes=classes)
    estimates = {one.name: one for one in metric_estimates(found)}
    for probabilities, models in ((found.probabilities, "candidate"), (found.baseline, "baseline")):
        scores = probabilities[:, 1] if classes == 2 else probabilities
        expected = {
            "accuracy": metrics.accuracy_score(found.truth, probabilities.argmax(axis=1)),
            "cross_entropy": metrics.log_loss(found.truth, probabilities.astype(np.float64)),
            "auc": metrics.roc_auc_score(found.truth, scores, multi_class="ovr"),
        }
        for name, value in expected.items():
            interval = getattr(estimates[name], models)
            assert interval.value == pytest.approx(value, abs=1e-5)
            assert interval.low < interval.value < interval.high


def test_the_change_is_the_difference_and_is_surer_than_the_two_intervals_suggest():
    found = predictions(examples=1000)
    for one in metric_estimates(found):
        assert one.change.value == pytest.approx(one.candidate.value - one.baseline.value)
        assert one.change.low < one.change.value < one.change.high
        assert one.change.low > one.candidate.low - one.baseline.high
        assert one.change.high < one.candidate.high - one.baseline.low


def test_a_model_compared_with_itself_changes_by_nothing():
    found = predictions()
    same = EvalPredictions(found.ids, found.labels, found.truth, found.probabilities, found.probabilities)
    for one in metric_estimates(same):
        assert (one.change.value, one.change.low, one.change.high) == (0, 0, 0)


def test_intervals_are_the_same_each_time_and_narrower_with_more_examples():
    few, many = metric_estimates(predictions(200))[1], metric_estimates(predictions(3200))[1]
    assert metric_estimates(predictions(200))[1] == few
    ratio = (few.candidate.high - few.candidate.low) / (many.candidate.high - many.candidate.low)
    assert 3 < ratio < 5.5  # 16 times the examples, a quarter of the width


def test_the_bootstrap_interval_holds_the_truth_about_as_often_as_it_says():
    everything = predictions(20000)
    truth = next(one.candidate.value for one in metric_estimates(everything) if one.name == "cross_entropy")
    held = 0
    for start in range(0, 20000, 200):
        part = slice(start, start + 200)
        sample = EvalPredictions(
            everything.ids[part], everything.labels, everything.truth[part], everything.probabilities[part]
        )
        interval = next(one.candidate for one in metric_estimates(sample) if one.name == "cross_entropy")
        held += interval.low <= truth <= interval.high
    assert 88 <= held <= 100


def test_the_confusion_matrix_and_the_classes_are_scikit_learns():
    found = predictions()
    matrix = confusion_matrix(found)
    np.testing.assert_array_equal(matrix, metrics.confusion_matrix(found.truth, found.predicted))
    precision, recall, _, support = metrics.precision_recall_fscore_support(found.truth, found.predicted)
    results = class_results(found)
    assert [one.label for one in results] == ["class 0", "class 1", "class 2"]
    np.testing.assert_allclose([one.recall.value for one in results], recall)
    np.testing.assert_allclose([one.precision.value for one in results], precision)
    assert [one.examples for one in results] == support.tolist()


def test_a_class_without_examples_has_no_recall():
    found = EvalPredictions(["a"], ["x", "y"], np.array([0]), np.array([[0.9, 0.1]], np.float32))
    present, absent = class_results(found)
    assert (present.recall.value, absent.recall, absent.precision) == (1, None, None)


def test_the_curves_are_scikit_learns():
    source = np.random.default_rng(1)
    positive, scores = source.random(300) < 0.3, np.round(source.random(300), 2)
    curve = threshold_curve(positive, scores)
    rate, recall, _ = metrics.roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.false_positive_rate, rate)
    np.testing.assert_allclose(curve.recall, recall)
    assert curve.average_precision == pytest.approx(metrics.average_precision_score(positive, scores))


def test_there_is_no_curve_of_one_kind_only():
    assert threshold_curve(np.array([True, True]), np.array([0.1, 0.9])) is None


def test_calibration_compares_how_sure_with_how_often_right():
    probabilities = np.array([[0.92, 0.08]] * 4 + [[0.4, 0.6]] * 2, np.float32)
    found = calibration(EvalPredictions(list("abcdef"), ["x", "y"], np.array([0, 0, 0, 1, 1, 1]), probabilities))
    low, high = found.bins
    assert (low.examples, low.accuracy.value) == (2, 1.0)
    assert (high.examples, high.accuracy.value) == (4, 0.75)
    assert found.expected_error == pytest.approx((2 * 0.4 + 4 * 0.17) / 6, abs=1e-6)


def test_two_runs_are_compared_on_the_examples_they_share_with_their_labels_lined_up():
    before = EvalPredictions(
        ["a", "b", "c"], ["y", "x"], np.array([1, 0, 0]), np.array([[0.1, 0.9], [0.8, 0.2], [0.7, 0.3]], np.float32)
    )
    after = EvalPredictions(["c", "d", "a"], ["x", "y"], np.array([1, 0, 0]), np.full([3, 2], 0.5, np.float32))
    common = common_examples(before, after)
    assert common.ids == ["c", "a"]
    np.testing.assert_allclose(common.baseline, [[0.3, 0.7], [0.9, 0.1]])
    assert common_examples(before, EvalPredictions(["z"], ["x", "y"], np.array([0]), np.ones([1, 2]))) is None


def test_only_the_keys_that_differ_are_named():
    before = {"name": "a", "trainer": {"epochs": 3, "l2": 0.1}}
    after = {"name": "a", "trainer": {"epochs": 5, "l2": 0.1, "seed": 0}}
    assert config_differences(before, after) == [("trainer.epochs", "3", "5"), ("trainer.seed", "", "0")]
