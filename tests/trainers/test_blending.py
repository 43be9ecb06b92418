"""Blending: the weights that are best, temperatures, and what is kept."""

from __future__ import annotations

import numpy as np
import pytest

from serving.reference_predictions import UnknownRule, predictions_of
from trainers.artifacts import unknown_rule
from trainers.errors import TrainingError
from trainers.options import ServingOptions, UnknownOptions
from trainers.tabular.blending import (
    best_temperature,
    best_weights,
    choose_blend,
    cross_entropies,
    expected_calibration_error,
    stratified_folds,
    tempered,
)

ROWS = 4000


def of_positive(probabilities: np.ndarray) -> np.ndarray:
    return np.stack([1 - probabilities, probabilities], axis=1)


def drawn(probabilities: np.ndarray, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(len(probabilities)) < probabilities).astype(np.int64)


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """The probability by which each label is drawn."""
    return np.random.default_rng(1).uniform(0.02, 0.98, size=ROWS)


def test_folds_are_all_rows_once_with_the_shares_of_the_labels():
    labels = np.repeat([0, 1, 2], [700, 250, 50])
    folds = stratified_folds(labels, seed=3)
    assert sorted(np.concatenate(folds)) == list(range(1000))
    assert [np.bincount(labels[fold]).tolist() for fold in folds] == [[140, 50, 10]] * 5
    assert all((one == other).all() for one, other in zip(folds, stratified_folds(labels, seed=3), strict=True))
    assert any((one != other).any() for one, other in zip(folds, stratified_folds(labels, seed=4), strict=True))


def test_of_many_rows_one_tenth_is_held_out_once():
    labels = np.arange(200_000) % 4
    (fold,) = stratified_folds(labels, seed=0)
    assert len(fold) == 20_000 and np.bincount(labels[fold]).tolist() == [5000] * 4
    (fold,) = stratified_folds(np.zeros(1_000_000, np.int64), seed=0)
    assert len(fold) == 50_000


def test_weights_are_those_of_the_mixture_that_the_labels_were_drawn_of():
    chance = np.random.default_rng(0)
    members = chance.dirichlet([1.0, 1.0, 1.0], size=[3, 40_000])
    shares = np.array([0.6, 0.0, 0.4])
    mixture = np.einsum("m,mnk->nk", shares, members)
    labels = (chance.random((len(mixture), 1)) > mixture.cumsum(axis=1)).sum(axis=1)
    of_labels = members[:, np.arange(len(labels)), labels].T
    np.testing.assert_allclose(best_weights(of_labels), shares, atol=0.04)


def test_no_other_weights_are_better(truth):
    labels = drawn(truth)
    source = np.random.default_rng(2)
    members = np.clip(truth[:, None] + source.normal(scale=[0.1, 0.2, 0.3], size=[ROWS, 3]), 0.01, 0.99)
    of_labels = np.where(labels[:, None] == 1, members, 1 - members)
    weights = best_weights(of_labels)
    assert weights.min() >= 0 and weights.sum() == pytest.approx(1)
    found = -np.log(of_labels @ weights).mean()
    others = source.dirichlet([1, 1, 1], size=500)
    assert found <= (-np.log(of_labels @ others.T).mean(axis=0)).min() + 1e-6


def test_a_member_that_knows_nothing_gets_no_weight(truth):
    labels = drawn(truth)
    blend = choose_blend({"good": of_positive(truth), "none": np.full([ROWS, 2], 0.5)}, labels)
    assert blend.weights == {"good": 1.0, "none": 0.0}
    assert blend.report["kept"] == "good"
    np.testing.assert_allclose(
        blend.probabilities({"good": of_positive(truth)}), tempered(of_positive(truth), blend.temperature), atol=1e-7
    )


def test_members_of_other_errors_are_blended(truth):
    labels = drawn(truth)
    noise = np.random.default_rng(3).normal(scale=0.25, size=[2, ROWS])
    members = {name: of_positive(np.clip(truth + part, 0.02, 0.98)) for name, part in zip("ab", noise, strict=True)}
    blend = choose_blend(members, labels)
    assert blend.report["kept"] == "blend" and all(0.3 < weight < 0.7 for weight in blend.weights.values())
    after = blend.report["blend"]["cross_entropy"]
    assert after[0] < min(cross_entropies(one, labels).mean() for one in members.values()) - 0.01
    assert after[1] < after[0] < after[2]


def test_a_gain_within_its_own_error_is_no_reason_to_blend(truth):
    labels = drawn(truth)[:100]
    a, b = of_positive(truth)[:100], of_positive(np.clip(truth + 0.01, 0, 1))[:100]
    blend = choose_blend({"a": a, "b": b}, labels)
    assert blend.report["kept"] in ("a", "b") and sorted(blend.weights.values()) == [0.0, 1.0]
    assert "is kept alone" in blend.report["why"] and "standard error" in blend.report["why"]


def test_a_blend_that_is_asked_for_is_made_whatever_it_gains(truth):
    labels = drawn(truth)[:200]
    source = np.random.default_rng(5).normal(scale=0.1, size=[2, 200])
    members = {
        name: of_positive(np.clip(truth[:200] + part, 0.02, 0.98)) for name, part in zip("ab", source, strict=True)
    }
    assert choose_blend(members, labels, always=True).report["kept"] == "blend"


def test_a_temperature_takes_planted_overconfidence_back(truth):
    labels = drawn(truth)
    too_sure = tempered(of_positive(truth), 0.4)
    assert best_temperature(too_sure, labels) == pytest.approx(1 / 0.4, rel=0.1)
    calibration = choose_blend({"sure": too_sure}, labels).report["calibration"]
    assert calibration["temperature"] == pytest.approx(1 / 0.4, rel=0.1)
    before, after = calibration["cross_entropy"]
    assert after < before - 0.05
    assert after == pytest.approx(cross_entropies(of_positive(truth), labels).mean(), abs=0.005)
    before, after = calibration["ece"]
    assert before > 0.1 and after < 0.03


def test_probabilities_that_are_right_are_left_as_they_are(truth):
    blend = choose_blend({"right": of_positive(truth)}, drawn(truth, seed=7))
    assert 0.93 < blend.temperature < 1.07


def test_calibration_error_is_how_far_confidence_is_from_accuracy():
    probabilities = of_positive(np.repeat([0.9, 0.4], [100, 100]))
    labels = np.concatenate([np.ones(70), np.zeros(30), np.ones(20), np.zeros(80)]).astype(np.int64)
    assert expected_calibration_error(probabilities, labels) == pytest.approx((0.2 + 0.2) / 2)


def test_a_label_for_unknown_that_a_label_has_and_a_coverage_of_too_few_rows_are_refused():
    ids = [f"{number:064x}" for number in range(100)]
    eval_split = predictions_of(ids, ["no", "yes"], of_positive(np.linspace(0.1, 0.9, 100).astype(np.float32)))
    truth = dict.fromkeys(ids[:60], 1)

    def rule(**unknown: object) -> UnknownRule | None:
        return unknown_rule(ServingOptions(unknown=UnknownOptions(**unknown)), ["no", "yes"], eval_split, truth)

    with pytest.raises(TrainingError, match=r"serving.unknown.label is 'no', which is one of the model's labels"):
        rule(label="no", confidence=0.7)
    with pytest.raises(
        TrainingError, match=r"coverage is 0.97, which needs 33 labelled rows .*, received 30; give more"
    ):
        rule(coverage=0.97)
    assert (found := rule(coverage=0.96)) is not None and found.rows == 30
    assert rule(label="?", confidence=0.7) == UnknownRule("?", 0.7)
    assert unknown_rule(ServingOptions(), ["no", "yes"], eval_split, truth) is None
