"""Blending: the weights that are best, temperatures, what is kept; and the threshold that decides about a label."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score
from tfx.components.trainer.fn_args_utils import FnArgs

from benchmarks.harness.pipelines import transform_graph
from components.serving_check.candidate import Candidate
from components.serving_check.check import disagreements
from pipeline.cli import main
from serving import reference_predictions
from serving.answers import UnknownRule, read_decision
from serving.client.grpc import GrpcClient
from serving.client.rest import RestClient
from serving.reference_predictions import FILE_NAME, predictions_of
from serving.server.app import EmbeddedServer
from serving.server.options import ServerOptions
from serving.session_model import SessionModel
from tests.trainers.test_tabular_trainer import accuracy, split
from trainers import blending
from trainers.artifacts import unknown_rule
from trainers.blending import (
    best_temperature,
    best_weights,
    choose_blend,
    cross_entropies,
    expected_calibration_error,
    stratified_folds,
    tempered,
)
from trainers.errors import TrainingError
from trainers.options import DecisionOptions, ServingOptions, UnknownOptions
from trainers.roc import Scores, best_threshold
from trainers.splits import TransformedSplit, check_weights, training_weights
from trainers.tabular.members import Deadline, Table, _LinearModel, _networks, _Trees, train_members
from trainers.tabular.models import Classifier, build_model
from trainers.tabular.options import TabularTrainerOptions, TreeOptions
from trainers.tabular.train import _decision, fit, run_fn
from trainers.tabular.trees import BY_LEVEL, GROWTHS, TreeTable, train_boosted, tree_count, tree_probabilities
from trainers.tuning import rows_of
from transform.options import LabelOptions, TabularOptions
from transform.tabular import preprocessing_fn

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


def test_a_row_of_weight_two_counts_as_two_rows(truth):
    labels = drawn(truth)[:2400]
    noise = np.random.default_rng(3).normal(scale=0.25, size=[2, 2400])
    weights = 1.0 + (np.arange(2400) % 3 == 0)
    twice = np.repeat(np.arange(2400), weights.astype(int))
    members = {
        name: of_positive(np.clip(truth[:2400] + part, 0.02, 0.98)) for name, part in zip("ab", noise, strict=True)
    }
    weighed = choose_blend(members, labels, True, weights)
    repeated = choose_blend({name: one[twice] for name, one in members.items()}, labels[twice], True)
    assert weighed.weights["a"] == pytest.approx(repeated.weights["a"], abs=1e-6)
    for figure in ("cross_entropy", "accuracy", "auc"):
        assert weighed.report["blend"][figure][0] == pytest.approx(repeated.report["blend"][figure][0], abs=2e-4)
    assert weighed.report["calibration"]["ece"][0] == pytest.approx(repeated.report["calibration"]["ece"][0])
    unweighed = choose_blend(members, labels, True)
    assert abs(weighed.weights["a"] - unweighed.weights["a"]) > 1e-3
    # Rows that stand twice are not more rows.
    width, narrow = (np.diff(one.report["blend"]["accuracy"][1:])[0] for one in (weighed, repeated))
    assert width > 1.05 * narrow


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
    labels = drawn(truth)
    a, b = of_positive(truth), of_positive(np.clip(truth + 0.005, 0, 1))
    blend = choose_blend({"a": a, "b": b}, labels)
    assert blend.report["kept"] in ("a", "b") and sorted(blend.weights.values()) == [0.0, 1.0]
    assert "is kept alone" in blend.report["why"] and "standard error" in blend.report["why"]


def test_of_few_rows_no_member_is_left_out_and_weights_are_drawn_towards_equal_ones(truth):
    labels = drawn(truth)[:300]
    blend = choose_blend({"good": of_positive(truth)[:300], "none": np.full([300, 2], 0.5)}, labels)
    # 300 rows speak for the one, a hundred more for both.
    assert blend.weights == pytest.approx({"good": 350 / 400, "none": 50 / 400})
    assert blend.report["kept"] == "blend" and "of 300 rows the best alone would be luck" in blend.report["why"]


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


@pytest.mark.parametrize(
    "asked",
    [
        DecisionOptions(maximise="f1"),
        DecisionOptions(maximise="accuracy"),
        DecisionOptions(at_least={"precision": 0.8}),
        DecisionOptions(at_least={"recall": 0.8}),
        DecisionOptions(at_least={"specificity": 0.9}),
    ],
    ids=str,
)
def test_no_threshold_is_better_than_the_one_that_is_chosen(asked, truth):
    positive = drawn(truth).astype(bool)[:500]
    scores = np.round(np.clip(truth[:500] ** 2 + 0.1, 0, 1), 2).astype(np.float32)
    weights = np.random.default_rng(1).choice([0.5, 1.0, 4.0], 500)
    rows = Scores(positive, scores, weights)
    threshold = best_threshold(asked, rows)
    assert np.float32(threshold) == threshold and np.abs(scores - threshold).min() > 1e-3

    def goal(figures: dict[str, list[float]]) -> float:
        if asked.maximise:
            return figures[asked.maximise][0]
        ((metric, bound),) = asked.at_least.items()
        other = "precision" if metric == "recall" else "recall"
        return figures[other][0] if figures[metric] and figures[metric][0] >= bound else -1.0

    others = [goal(rows.figures(other)) for other in np.linspace(0.001, 0.999, 999)]
    assert goal(rows.figures(threshold)) == pytest.approx(max(others))


def test_figures_at_a_threshold_are_scikit_learns(truth):
    positive, scores = drawn(truth).astype(bool), truth.astype(np.float32)
    weights = np.random.default_rng(1).choice([0.5, 4.0], ROWS)
    figures = Scores(positive, scores, weights).figures(0.3)
    named = scores >= 0.3
    for name, metric in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        assert figures[name][0] == pytest.approx(metric(positive, named, sample_weight=weights))
    assert figures["precision"][1] < figures["precision"][0] < figures["precision"][2]


def test_what_no_threshold_reaches_is_said_with_what_is_reached():
    rows = Scores(np.array([True, False] * 20), np.repeat([0.4, 0.6], 20).astype(np.float32))
    with pytest.raises(TrainingError, match=r"precision is 0.9, and no threshold reaches more than 0.5000 on 40"):
        best_threshold(DecisionOptions(at_least={"precision": 0.9}), rows)
    with pytest.raises(TrainingError, match="of 20 rows, 20 have the positive label"):
        best_threshold(DecisionOptions(maximise="f1"), Scores(np.ones(20, bool), np.ones(20, np.float32)))


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


def turned(seed: int = 0) -> TransformedSplit:
    """What the number says of the label depends on the category, which no linear model sees."""
    rows = split(seed=seed)
    numbers, categories = rows.features["numbers"][:, 0], rows.features["categories"][:, 0]
    return replace(rows, labels=((numbers > 0) ^ (categories == 1)).astype(np.int64))


def members_of(rows: TransformedSplit, **options: Any) -> Classifier:
    small = {"hidden_units": (), "trees": {"count": 80, "forest": 20}} | options
    return train_members(Table(rows, 2, 3, {}, TabularTrainerOptions(**small)))


def test_members_are_weighed_by_rows_that_they_did_not_see_and_the_same_seed_gives_the_same():
    first, second = (members_of(turned(), hidden_units=(16,), epochs=12) for _ in range(2))
    tried = first.report["members"]
    assert list(tried) == ["linear", "trees", "forest", "network"]
    assert tried["trees"]["cross_entropy"][0] < 0.3 and tried["linear"]["cross_entropy"][0] > 0.5
    assert tried["linear"]["weight"] < 0.1
    assert first.report["blend"]["cross_entropy"][0] <= tried["trees"]["cross_entropy"][0] + 1e-6
    for name in tried:
        assert tried[name]["weight"] == pytest.approx(second.report["members"][name]["weight"], abs=1e-4)
    asked = turned(seed=1)
    np.testing.assert_allclose(first.predict(asked), second.predict(asked), atol=1e-5)
    assert (first.predict(asked).argmax(axis=1) == asked.labels).mean() > 0.95


def test_of_many_rows_the_models_that_chose_the_blend_are_those_that_are_kept(monkeypatch):
    monkeypatch.setattr(blending, "_ROWS_OF_ALL_FOLDS", 100)
    monkeypatch.setattr("trainers.tabular.members._ROWS_OF_FLATTERY", 100)
    grown = []

    def counted(*given: Any) -> Any:
        grown.append(train_boosted(*given))
        return grown[-1]

    monkeypatch.setattr("trainers.tabular.members.train_boosted", counted)
    rows = turned()
    kept = members_of(rows, model="blend", trees={"count": 80, "forest": 0})  # of many rows there is no forest
    held_out, of_blend = kept.out_of_fold
    assert kept.report["folds"] == 1 and len(held_out) == len(rows.labels) // 10
    np.testing.assert_allclose(kept.predict(rows_of(rows, held_out)), of_blend, atol=1e-5)
    assert [tree_count(model) for model in grown] == [kept.report["members"]["trees"]["chosen"]["trees"]]
    assert kept.report["members"]["linear"]["weight"] > 0.1


def test_trees_alone_answer_as_ydf_does_also_of_categories_that_no_training_met():
    trees = members_of(split(), model="trees")
    assert list(trees.report["members"]) == ["trees"] and trees.report["kept"] == "trees"
    again = members_of(split(), model="trees")
    asked = split(seed=1)
    np.testing.assert_array_equal(trees.predict(asked), again.predict(asked))
    asked.features["categories"][::3] = 2
    served = tf.function(trees.answer, autograph=False)(asked.features)
    np.testing.assert_allclose(served, trees.predict(asked), atol=1e-6)


def test_trees_grow_level_by_level_or_where_they_gain_most_as_folds_of_so_many_rows_tell(monkeypatch):
    table, asked = Table(turned(), 2, 3, {}, TabularTrainerOptions(trees={"count": 80})), turned(seed=1)
    trees, deadline = _Trees.of(table), Deadline(None)
    found = {growth: trees._grown(growth, deadline, 0.0) for growth in GROWTHS}
    losses = {growth: table.loss(one.probabilities) for growth, one in found.items()}
    assert losses["level by level"] != losses["best first"]
    assert trees.boosted(deadline, 0.0).chosen == found["level by level"].chosen
    monkeypatch.setattr("trainers.tabular.trees._ROWS_OF_BOTH", (0, 1000))
    assert trees.boosted(deadline, 0.0).chosen == found[min(losses, key=losses.__getitem__)].chosen
    best_first = found["best first"].refit()
    served = tf.function(best_first.answer, autograph=False)(asked.features)
    np.testing.assert_allclose(served, best_first.predict(asked), atol=1e-6)


def misled(rows: int = 600) -> TransformedSplit:
    """Two thirds of the labels are the wrong ones, and these rows have hardly any weight."""
    wrong = np.arange(rows) % 3 > 0
    right = split(rows)
    return replace(right, labels=np.where(wrong, 1 - right.labels, right.labels), weights=np.where(wrong, 0.01, 3.0))


def test_each_member_learns_what_rows_of_weight_say():
    tried = members_of(misled(), model="blend", hidden_units=(16,), epochs=15).report["members"]
    assert list(tried) == ["linear", "trees", "forest", "network"]
    for name, figures in tried.items():
        assert figures["accuracy"][0] > 0.8, name


def test_trees_are_as_good_where_rows_have_weights_that_say_nothing():
    chance = np.random.default_rng(2)
    numbers = chance.normal(size=[3000, 6]).astype(np.float32)
    logits = numbers @ np.array([1, -1, 0.5, 0.5, 0, 0], np.float32) + numbers[:, 4] * numbers[:, 5] - 1.5
    labels = (chance.random(3000) < 1 / (1 + np.exp(-4 * logits))).astype(np.int64)
    rows = TreeTable(numbers, np.zeros((3000, 0), np.int64))
    answers = {}
    drawn = chance.lognormal(size=2000)
    for name, weights in (("plain", None), ("weighed", drawn / drawn.mean())):
        model = train_boosted(rows.rows(slice(2000)), labels[:2000], weights, TreeOptions(count=80), 0, BY_LEVEL)
        answers[name] = tree_probabilities(model, rows.rows(slice(2000, None)), 2)[:, 1]
    areas = {name: roc_auc_score(labels[2000:], found) for name, found in answers.items()}
    assert areas["weighed"] > areas["plain"] - 0.03
    assert np.abs(answers["weighed"] - answers["plain"]).max() > 0.01


def test_a_keras_model_learns_what_rows_of_weight_say():
    options = TabularTrainerOptions(hidden_units=(), epochs=60, learning_rate=0.1, early_stopping_patience=30)
    model = build_model(split().features, vocabulary_size=2, classes=2, options=options)
    fit(model, misled(), options)
    assert accuracy(model, split(seed=1)) > 0.8


def test_balanced_classes_make_a_rare_label_as_likely_as_a_frequent_one_for_each_member():
    rare = replace(split(600), labels=(np.arange(600) % 10 == 0).astype(np.int64))
    for model in ("linear", "trees", "network"):
        options = {"hidden_units": (8,) if model == "network" else (), "epochs": 8, "trees": {"count": 20, "forest": 0}}
        kept = {"none": 0.0, "balanced": 0.0}
        for kind in kept:
            table = Table(rare, 2, 3, {}, TabularTrainerOptions(**options, class_weights=kind))
            tried = {"linear": _LinearModel(table).tried, "network": partial(_networks, table)}.get(model)
            attempt = tried or _Trees.of(table).boosted
            kept[kind] = float(attempt(Deadline(None), 0.0).probabilities[:, 1].mean())
        assert kept["none"] < 0.2 and 0.4 < kept["balanced"] < 0.6, model
    # Of rows that have weights, too: 60 of weight 3 and 540 of weight 1.
    weighed = replace(rare, weights=np.where(rare.labels == 1, 3.0, 1.0))
    weights = training_weights(weighed, 2, balanced=True)
    assert [weights[rare.labels == label].sum() for label in (0, 1)] == pytest.approx([300, 300])
    assert weights.mean() == pytest.approx(1)


@pytest.mark.parametrize(
    ("weights", "said"),
    [([1.0, -2.0], "of the first it is -2"), ([-1e38, 1.0], "is missing"), ([0.0, 0.0], "is 0 in all 2 rows")],
)
def test_weights_that_weigh_nothing_are_refused(weights, said):
    with pytest.raises(TrainingError, match=said):
        check_weights(np.array(weights), "w")


def test_trees_that_never_met_a_label_give_it_no_probability():
    rows = split()
    three = Table(rows, 3, 2, {}, TabularTrainerOptions(model="trees", trees={"count": 20}))
    never_met = train_members(three)
    answers = never_met.predict(rows)
    assert answers.shape == (400, 3) and (answers[:, 2] < 1e-6).all()
    np.testing.assert_allclose(tf.function(never_met.answer, autograph=False)(rows.features), answers, atol=1e-6)


def test_of_many_rows_boosting_takes_fewer_and_larger_steps_unless_it_is_told_how_many(monkeypatch):
    numbers = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    table, labels = TreeTable(numbers, np.zeros([200, 0], np.int64)), (numbers[:, 0] > 0).astype(np.int64)

    def grown(**options: Any) -> Any:
        return train_boosted(table, labels, None, TreeOptions(**options), 0, BY_LEVEL)

    few = grown()
    monkeypatch.setattr("trainers.tabular.trees._ROWS_OF_EXACT_SPLITS", 100)
    many = grown()
    assert (tree_count(few), tree_count(many), tree_count(grown(count=7))) == (600, 300, 7)
    # A first tree that counts for more is surer.
    small, large, default = (
        float(np.ptp(tree_probabilities(grown(count=1, **step), table, 2)))
        for step in ({"learning_rate": 0.05}, {"learning_rate": 0.1}, {})
    )
    assert default == pytest.approx(large) and large > 1.2 * small


def test_few_rows_get_a_linear_model_and_a_sentence():
    few = members_of(split(rows=12))
    assert few.report["why"].startswith("12 rows and ") and "nothing was compared" in few.report["why"]
    np.testing.assert_allclose(few.predict(split(seed=1)).sum(axis=1), 1, atol=1e-6)


def test_members_that_there_is_no_time_for_are_left_out():
    hurried = members_of(split(), minutes=1e-6)
    assert list(hurried.report["members"]) == ["linear"] and hurried.report["left_out"] == ["trees", "forest"]


SMALL = TabularOptions(label=LabelOptions(column="bought", positive="yes"), columns={"w": "ignored"})
SMALL_SPEC = {
    name: tf.io.VarLenFeature(dtype)
    for name, dtype in (("x", tf.float32), ("c", tf.string), ("w", tf.float32), ("bought", tf.string))
}


def small_rows(count: int, seed: int) -> list[tuple[float, str, float, str]]:
    """A number, a category, a weight, and what follows from the first two, by chance."""
    chance = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        x, c = float(np.float32(chance.normal())), str(chance.choice(["a", "b"]))
        yes = chance.random() < 1 / (1 + np.exp(1.2 - 1.5 * x - (c == "a")))
        found.append((x, c, 3.0 if c == "b" else 1.0, "yes" if yes else "no"))
    return found


def small_example(x: float, c: str, w: float, bought: str) -> bytes:
    result = tf.train.Example()
    result.features.feature["x"].float_list.value.append(x)
    result.features.feature["c"].bytes_list.value.append(c.encode())
    result.features.feature["w"].float_list.value.append(w)
    result.features.feature["bought"].bytes_list.value.append(bought.encode())
    return result.SerializeToString(deterministic=True)


TRAIN_ROWS, EVAL_ROWS = small_rows(400, seed=0), small_rows(120, seed=1)


@pytest.fixture(scope="module")
def small_graph(tmp_path_factory) -> Path:
    """Examples of both splits, and Transform's graph."""
    tf.compat.v1.reset_default_graph()
    folder = tmp_path_factory.mktemp("small")
    for name, table in (("train", TRAIN_ROWS), ("eval", EVAL_ROWS)):
        with tf.io.TFRecordWriter(f"{folder}/{name}.gz", "GZIP") as writer:
            for row in table:
                writer.write(small_example(*row))
    config = {"preprocessing": SMALL.model_dump_json()}
    transform_graph(preprocessing_fn, config, SMALL_SPEC, f"{folder}/train.gz", str(folder))
    return folder


DECISIONS = {
    "auto": DecisionOptions(at_least={"precision": 0.7}),
    "linear": DecisionOptions(maximise="f1"),
    "trees": DecisionOptions(threshold=0.3),
}


@pytest.fixture(scope="module", params=list(DECISIONS))
def decided(request, small_graph) -> tuple[DecisionOptions, Path]:
    """A model base path with a version that decides about its label, and what the Trainer left there."""
    base, asked = small_graph / request.param, DECISIONS[request.param]
    options = TabularTrainerOptions(
        model=request.param, hidden_units=(), epochs=8, learning_rate=0.05, trees={"count": 40, "forest": 20}
    )
    run_fn(
        FnArgs(
            train_files=[f"{small_graph}/train.gz"],
            eval_files=[f"{small_graph}/eval.gz"],
            model_run_dir=f"{base}/model_run",
            transform_output=f"{small_graph}/graph",
            serving_model_dir=f"{base}/1",
            base_model="",
            custom_config={
                "preprocessing": SMALL.model_dump_json(),
                "trainer": options.model_dump_json(),
                "code_fingerprint": "code",
                "weight": "w",
                "serving": ServingOptions(decision=asked).model_dump_json(exclude_defaults=True),
            },
        )
    )
    return asked, base


def small_columns(rows: list[tuple[float, str, float, str]]) -> dict[str, Any]:
    return {"x": [row[0] for row in rows], "c": [row[1] for row in rows]}


def test_the_label_is_decided_by_the_threshold_and_probabilities_are_as_they_were(decided):
    asked, base = decided
    left = json.loads((base / "provenance.json").read_text())["decision"]
    decision = read_decision(f"{base}/1")
    assert (decision.label, decision.threshold) == ("yes", left["threshold"]) and left["by"] == str(asked)
    if "rows" in left:
        assert left["rows"] == len(TRAIN_ROWS)
    if asked.at_least:
        assert left["figures"]["precision"][0] >= 0.7
    if asked.maximise:
        assert left["figures"]["f1"][0] >= left["at_a_half"]["f1"][0]
    session = SessionModel(f"{base}/1")
    columns = {"x": np.array(small_columns(EVAL_ROWS)["x"], np.float32)}
    columns["c"] = np.array(small_columns(EVAL_ROWS)["c"], object)
    served = session.run("serving_default", columns)["output_0"]
    ranked = session.run("classify", columns)
    records = np.array([small_example(*row) for row in EVAL_ROWS], object)
    (probabilities,) = session.run("serve_examples", {"examples": records}).values()
    features = session.run("transform_features", {"examples": records})
    session.close()
    expected = np.where(probabilities[:, 1] >= np.float32(decision.threshold), b"yes", b"no")
    assert served.tolist() == expected.tolist()
    assert (expected != np.array([b"no", b"yes"])[probabilities.argmax(axis=1)]).any()
    assert ranked["labels"][:, 0].tolist() == np.array([b"no", b"yes"])[probabilities.argmax(axis=1)].tolist()
    # The weight is neither a feature nor an input.
    assert features["numbers"].shape[1] == 2 and features["categories"].shape[1] == 1


def test_servers_and_scoring_answer_the_label_of_the_training_graph(decided, tmp_path):
    _, base = decided
    reference = reference_predictions.read(f"{base}/{FILE_NAME}")
    label_of = dict(zip(reference.ids, reference.served, strict=True))
    expected = [label_of[reference_predictions.example_id(small_example(*row))] for row in EVAL_ROWS]
    with EmbeddedServer({"small": str(base)}, ServerOptions(rest_port=0, grpc_port=0)) as server:
        for client in (RestClient(port=server.rest_port), GrpcClient(port=server.grpc_port)):
            with client:
                answer = client.predict("small", small_columns(EVAL_ROWS))["output_0"]
                assert [one.decode() if isinstance(one, bytes) else one for one in answer] == expected
    table = tmp_path / "rows.csv"
    table.write_text("\n".join(["x,c", *(f"{row[0]!r},{row[1]}" for row in EVAL_ROWS), ""]))
    done = CliRunner().invoke(main, ["score", str(base), "--input", str(table), "--output", f"{tmp_path}/scores.jsonl"])
    assert done.exit_code == 0, done.output
    scores = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert [score["label"] for score in scores] == expected
    assert all(score["probability"] == score["probabilities"][score["label"]] for score in scores)


def test_the_serving_check_compares_decided_labels_by_value(decided, tmp_path):
    _, base = decided
    reference = reference_predictions.read(f"{base}/{FILE_NAME}")
    undecided = reference_predictions.predictions_of(reference.ids, ["no", "yes"], reference.probabilities)
    reference_predictions.write(f"{tmp_path}/undecided.parquet", undecided)
    session = SessionModel(f"{base}/1")
    found = {}
    for path in (f"{base}/{FILE_NAME}", f"{tmp_path}/undecided.parquet"):
        candidate = Candidate.read(f"{base}/1", path, [f"{base.parent}/eval.gz"], 1000)
        found[path] = disagreements(session.run, candidate, 1e-6)
    session.close()
    assert found[f"{base}/{FILE_NAME}"] == []
    first, *_ = found[f"{tmp_path}/undecided.parquet"]
    assert first.startswith("serving_default, example") and "the reference probability of 'yes' is" in first


def test_too_few_rows_choose_no_threshold():
    numbers = np.random.default_rng(0).normal(size=[18, 1]).astype(np.float32)
    rows = TransformedSplit([], {"numbers": numbers}, (numbers[:, 0] > 0).astype(np.int64), left_out=0, fingerprint="")
    table = Table(rows, 2, 0, {}, TabularTrainerOptions(hidden_units=()))
    few = train_members(table)
    with pytest.raises(TrainingError, match="18 rows, or those of the second most frequent label, are too few"):
        _decision(DecisionOptions(maximise="f1"), table, few, ["a", "b"], LabelOptions(column="label", positive="b"))
