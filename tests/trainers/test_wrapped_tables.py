"""Models of tables that exist: each library's own answers, out of a graph of core operations."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import xgboost
from tfx.components.trainer.fn_args_utils import FnArgs

from benchmarks.harness.running import TEST_DATA
from benchmarks.tabular.wrapped import LABELS, LIBRARIES, OwnModel, adult, compare, exported
from components.errors import BrokenInput
from pipeline.config import load_config
from pipeline.tasks import raw_data
from serving.session_model import SessionModel
from serving.signatures import forests
from serving.signatures.forests import AT_LEAST, IN_SET, LEAF, Forest, forest_scores
from trainers.errors import TrainingError
from trainers.options import DecisionOptions, ServingOptions
from trainers.tabular.options import WrapTableOptions
from trainers.tabular.train import run_fn
from trainers.tabular.tree_models import (
    TreeModel,
    _Growing,
    category_numbers,
    forest_of_lightgbm,
    forest_of_sklearn,
    forest_of_xgboost,
    forest_of_ydf,
)
from trainers.tabular.wrap import WrappedTable, raw_preprocessing, wrapped_table
from transform.options import LabelOptions, TabularOptions

needs_adult = pytest.mark.skipif(TEST_DATA not in os.environ, reason=f"${TEST_DATA} is not set: it has the table adult")

ROWS = 200
MISSING_SHARE = 0.1


def with_gaps(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers that are missing, categories that are missing, and some that no training has seen."""
    source = np.random.default_rng(3)
    gaps = table.copy()
    for name in gaps:
        if name == "label":
            continue
        missing = source.random(len(gaps)) < MISSING_SHARE
        if gaps[name].dtype == object:
            gaps.loc[source.random(len(gaps)) < MISSING_SHARE, name] = "never seen"
            gaps.loc[missing, name] = np.nan
        else:
            gaps[name] = gaps[name].astype(float).mask(missing)
    return gaps


@pytest.fixture(scope="module", params=LIBRARIES)
def own_model(request, tmp_path_factory) -> OwnModel:
    return LIBRARIES[request.param](adult("train", 600), tmp_path_factory.mktemp("model"), 5)


@pytest.fixture(scope="module")
def wrapped(own_model) -> WrappedTable:
    return wrapped_table(own_model.options)


def as_table(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Columns as examples have them, a missing value in the form of its dtype."""
    return {
        name: rows[name].fillna("").to_numpy(object)
        if rows[name].dtype == object
        else rows[name].fillna(-(2**31)).to_numpy(np.int64)
        for name in rows
        if name != "label"
    }


@needs_adult
def test_the_graph_answers_each_row_as_the_library_does_itself(own_model, wrapped):
    rows, gaps = adult("test", ROWS), with_gaps(adult("test", ROWS))
    if own_model.options.model.endswith("forest.skops"):  # scikit-learn's own refuses missing numbers here
        gaps = gaps.fillna(rows)
    columns = as_table(pd.concat([rows, gaps]))
    answers = tf.function(wrapped.predict, autograph=False)({name: tf.constant(columns[name]) for name in columns})
    expected = own_model.predict(rows)
    assert wrapped.labels == LABELS
    assert expected.std() > 0.02
    np.testing.assert_allclose(answers[:ROWS, 1], expected, atol=1e-6)
    said = wrapped.answers(columns)
    np.testing.assert_allclose(answers, said, atol=1e-6)
    assert np.abs(said[:ROWS] - said[ROWS:]).max() > 0.01


@pytest.fixture(scope="module", params=["keras"])
def export(request, tmp_path_factory) -> tuple[OwnModel, str]:
    folder = tmp_path_factory.mktemp("export")
    model = LIBRARIES[request.param](adult("train", 600), folder, 5)
    return model, exported(model, adult("test", ROWS), folder)


@needs_adult
def test_the_export_answers_each_row_as_the_library_does_itself(export):
    model, path = export
    session = SessionModel(path)
    found = compare(session, model, adult("test", ROWS))
    session.close()
    assert (found.rows, found.labels) == (ROWS, ROWS)
    assert found.difference < 1e-6


@needs_adult
def test_the_provenance_says_how_the_graph_and_the_library_agree_on_all_rows(export):
    provenance = json.loads(Path(export[1]).parent.joinpath("provenance.json").read_text())
    wrapped = provenance["wrapped"]
    assert (wrapped["rows"], wrapped["labels_equal"]) == (2 * ROWS, 2 * ROWS)
    assert 0 < wrapped["greatest_difference"] < 1e-6


@needs_adult
def test_a_threshold_decides_about_the_label_of_a_wrapped_model(export, tmp_path):
    model, path = export
    folder, label = Path(path).parents[1], LabelOptions(column="label", positive=LABELS[1])
    config = {
        "preprocessing": raw_preprocessing(model.options, TabularOptions(label=label)).model_dump_json(),
        "trainer": model.options.model_dump_json(),
        "code_fingerprint": "code",
        "serving": ServingOptions(decision=DecisionOptions(threshold=0.2)).model_dump_json(exclude_defaults=True),
    }
    files = [f"{folder}/examples.gz"]
    run_fn(
        FnArgs(
            train_files=files, eval_files=files, model_run_dir=f"{tmp_path}/run", transform_output=f"{folder}/graph",
            serving_model_dir=f"{tmp_path}/model", custom_config=config,
        )
    )  # fmt: skip
    expected = np.where(model.predict(adult("test", ROWS)) >= 0.2, *LABELS[::-1])
    rows = adult("test", ROWS)
    session = SessionModel(f"{tmp_path}/model")
    served = session.run("serving_default", {name: rows[name].to_numpy() for name in rows if name != "label"})
    session.close()
    assert [label.decode() for label in served["output_0"]] == expected.tolist()
    assert (expected == LABELS[1]).sum() > (model.predict(rows) >= 0.5).sum()
    provenance = json.loads((tmp_path / "provenance.json").read_text())
    assert provenance["decision"]["label"] == LABELS[1] and provenance["decision"]["by"] == "threshold: 0.2"


CORE_OPERATIONS = """
import sys
for library in ("ydf", "xgboost", "lightgbm", "sklearn", "skops", "keras", "tensorflow_transform"):
    sys.modules[library] = None  # an import of it raises ImportError
import tensorflow as tf
from tensorflow.core.framework import op_def_pb2
known = set(tf.raw_ops.__dict__)
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    meta_graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], sys.argv[1])
    signature = meta_graph.signature_def["serving_default"]
    feeds = {tensor.name: ["Private"] if tensor.dtype == tf.string.as_datatype_enum else [1]
             for tensor in signature.inputs.values()}
    print(session.run(signature.outputs["output_0"].name, feeds)[0].decode())
    graph = meta_graph.graph_def
    used = {node.op for node in graph.node} | {node.op for f in graph.library.function for node in f.node_def}
    own = {f.signature.name for f in graph.library.function}
    print(sorted(used - known - own - {"NoOp"}))
"""


@needs_adult
def test_serving_needs_none_of_the_libraries_and_no_operation_of_its_own(export):
    done = subprocess.run(
        [sys.executable, "-c", CORE_OPERATIONS, export[1]], capture_output=True, text=True, check=True, timeout=120
    )
    label, foreign = done.stdout.strip().splitlines()
    assert label in LABELS
    assert foreign == "[]"


# A forest by hand, and its evaluation in plain Python.


def grown(source: np.random.Generator, trees: int, depth: int, outputs: int, oblique: bool) -> Forest:
    """Random trees over three numbers and two columns of five and forty categories."""
    growing = _Growing()

    def node(left: int) -> int:
        if left == 0 or source.random() < 0.15:
            return growing.leaf([*source.normal(size=outputs if outputs > 1 else 1)])
        yes, no, missing = node(left - 1), node(left - 1), bool(source.random() < 0.5)
        kind = source.integers(3 if oblique else 2)
        if kind == 0:
            return growing.at_least(int(source.integers(3)), float(source.integers(-3, 4)) / 2, missing, yes, no)
        if kind == 1:
            column = int(source.integers(2))
            members = source.permutation((5, 40)[column])[: source.integers(1, 5)].tolist()
            return growing.in_set(column, members, missing, yes, no)
        columns = source.permutation(3)[:2].tolist()
        replacements = [0.5, -0.5] if source.random() < 0.5 else []
        return growing.oblique(columns, [1.5, -0.25], replacements, 0.25, missing, yes, no)

    for _ in range(trees):
        growing.tree(node(depth))
    return growing.forest([*source.normal(size=outputs)], [5, 40])


def by_hand(forest: Forest, numbers: np.ndarray, categories: np.ndarray) -> np.ndarray:
    scores = np.tile(forest.bias, (len(numbers), 1))
    for row in range(len(numbers)):
        for root in forest.roots:
            node = root
            while forest.condition[node] != LEAF:
                node = (forest.yes if holds(forest, node, numbers[row], categories[row]) else forest.no)[node]
            scores[row] += forest.leaf_values[forest.leaf[node]]
    return scores


def holds(forest: Forest, node: int, numbers: np.ndarray, categories: np.ndarray) -> bool:
    column, missing, threshold = forest.column[node], bool(forest.missing[node]), forest.threshold[node]
    if forest.condition[node] == AT_LEAST:
        return missing if np.isnan(numbers[column]) else bool(numbers[column] >= threshold)
    if forest.condition[node] == IN_SET:
        category = categories[column]
        if not 0 <= category < forest.category_counts[column]:
            return missing
        members = np.unpackbits(forest.sets[forest.members[node]], bitorder="little")
        return bool(category < len(members) and members[category])
    total = np.float32(0)
    for term, weight, replacement in zip(
        forest.projection_columns[column],
        forest.projection_weights[column],
        forest.projection_replacements[column],
        strict=True,
    ):
        number = np.float32(numbers[term])
        total += (replacement if np.isnan(number) else number) * weight
    return missing if np.isnan(total) else bool(total >= threshold)


@pytest.fixture(scope="module")
def raw_rows() -> tuple[np.ndarray, np.ndarray]:
    source = np.random.default_rng(1)
    numbers = (source.integers(-4, 5, size=[60, 3]) / 2).astype(np.float32)
    numbers[source.random([60, 3]) < 0.2] = np.nan
    return numbers, np.stack([source.integers(-1, 7, 60), source.integers(-1, 42, 60)], axis=1)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize(
    ("depth", "oblique", "most_bytes"),
    [(4, False, None), (6, False, None), (8, False, None), (5, False, 0), (9, False, 0), (5, True, None)],
    ids=["32 leaves", "64 leaves", "more leaves", "walked", "walked far", "oblique"],
)
def test_a_forest_adds_the_leaves_that_each_row_comes_to(raw_rows, depth, oblique, most_bytes, outputs, monkeypatch):
    if most_bytes is not None:
        monkeypatch.setattr(forests, "_MOST_BYTES", most_bytes)
    forest = grown(np.random.default_rng(depth), trees=7, depth=depth, outputs=outputs, oblique=oblique)
    scores = forest_scores(forest, *map(tf.constant, raw_rows)).numpy()
    np.testing.assert_allclose(scores, by_hand(forest, *raw_rows), atol=1e-6)
    assert len(np.unique(scores[:, 0])) > 20


@pytest.mark.parametrize("joined_bytes", [0, 1 << 10, 1 << 30], ids=["apart", "some of them", "all together"])
def test_columns_whose_values_are_looked_up_together_rule_out_the_same_leaves(raw_rows, joined_bytes, monkeypatch):
    monkeypatch.setattr(forests, "_JOINED_BYTES", joined_bytes)
    trees = grown(np.random.default_rng(8), trees=7, depth=5, outputs=1, oblique=False)
    np.testing.assert_allclose(forest_scores(trees, *map(tf.constant, raw_rows)), by_hand(trees, *raw_rows), atol=1e-6)


@pytest.mark.parametrize("outputs", [1, 3])
def test_trees_that_are_nothing_but_a_leaf_add_it_to_each_row(raw_rows, outputs, monkeypatch):
    monkeypatch.setattr(forests, "_BLOCK_LEAVES", 1)
    growing = _Growing()
    growing.tree(growing.at_least(0, 0.5, False, growing.leaf([1.0]), growing.leaf([2.0])))
    growing.tree(growing.leaf([4.0]), 1 % outputs)
    growing.tree(growing.leaf([8.0]), 2 % outputs)
    scores = forest_scores(growing.forest([0.25] * outputs, [5, 40]), *map(tf.constant, raw_rows)).numpy()
    first = np.where(raw_rows[0][:, 0] >= 0.5, 1.25, 2.25)
    expected = [first + 12] if outputs == 1 else [first, np.full(60, 4.25), np.full(60, 8.25)]
    np.testing.assert_array_equal(scores, np.stack(expected, axis=1))


def test_trees_of_several_outputs_each_add_to_their_own(raw_rows):
    forest = grown(np.random.default_rng(5), trees=6, depth=3, outputs=1, oblique=False)
    of_three = replace(forest, tree_outputs=np.array([0, 1, 2, 0, 1, 2], np.int32), bias=np.array([0.5, 0.0, -0.5]))
    scores = forest_scores(of_three, *map(tf.constant, raw_rows)).numpy()
    for output in range(3):
        part = replace(forest, roots=forest.roots[output::3], bias=of_three.bias[output : output + 1])
        np.testing.assert_allclose(scores[:, output : output + 1], by_hand(part, *raw_rows), atol=1e-6)


@pytest.mark.parametrize("most_bytes", [1 << 20, 0], ids=["masks", "walked"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threshold", [0.0, 0.1, 1 / 3, 16777217.0, -0.1, 1e300])
def test_a_number_above_a_threshold_is_told_from_one_at_it(threshold, dtype, most_bytes, monkeypatch):
    monkeypatch.setattr(forests, "_MOST_BYTES", most_bytes)
    growing = _Growing()
    growing.tree(
        growing.at_least(0, float(np.nextafter(threshold, np.inf)), False, growing.leaf([1]), growing.leaf([0]))
    )
    with np.errstate(over="ignore"):
        near = np.array([threshold], dtype)
        numbers = np.concatenate([near, np.nextafter(near, dtype(np.inf)), np.nextafter(near, dtype(-np.inf))])
    numbers = numbers[np.isfinite(numbers) & ((numbers == 0) | (np.abs(numbers) > np.finfo(dtype).tiny))]
    scores = forest_scores(
        growing.forest([0.0], []), tf.constant(numbers[:, None]), tf.zeros([len(numbers), 0], tf.int64)
    )
    np.testing.assert_array_equal(scores[:, 0], (numbers.astype(np.float64) > threshold).astype(np.float32))


def test_a_text_is_found_among_the_categories():
    texts = tf.constant(["b", "", "zebra", "a", "ä"])
    np.testing.assert_array_equal(category_numbers(texts, ["b", "a", "ä"], unknown=7), [0, -1, 7, 1, 2])
    np.testing.assert_array_equal(category_numbers(texts, [], unknown=-1), [-1] * 5)


# What the libraries do otherwise than by their defaults, on a table of numbers with gaps and a column of categories.


@pytest.fixture(scope="module")
def shop() -> tuple[pd.DataFrame, np.ndarray]:
    """Rows, and one of three classes for each."""
    source = np.random.default_rng(2)
    table = pd.DataFrame({name: source.normal(size=400).round(1) for name in ("price", "size")})
    table["stock"] = source.integers(0, 4, 400).astype(float)
    table["colour"] = pd.Categorical(source.choice(["red", "green", "blue"], 400), ["red", "green", "blue"])
    score = table["price"] + (table["colour"] == "red") - 0.5 * table["stock"] + source.normal(0, 0.3, 400)
    table = table.mask(source.random(table.shape) < 0.1)
    return table, np.digitize(score, [-0.5, 0.5])


def answers(model: TreeModel, table: pd.DataFrame) -> np.ndarray:
    names = dict(zip(model.numbers, table.columns, strict=False)) if model.numbers[0] == "0" else {}
    columns = {name: table[names.get(name, name)].fillna(-1e38).to_numpy(np.float64) for name in model.numbers}
    columns |= {name: table[name].astype(object).fillna("").to_numpy(object) for name in model.categories}
    return model.predict_columns({name: tf.constant(values) for name, values in columns.items()}).numpy()


@pytest.mark.parametrize(
    "options", [{}, {"booster": "dart", "rate_drop": 0.3}, {"max_depth": 9}, {"grow_policy": "lossguide"}], ids=str
)
@pytest.mark.parametrize("classes", [2, 3])
def test_xgboost_is_carried_over(shop, classes, options):
    table, label = shop[0], np.minimum(shop[1], classes - 1)
    model = xgboost.XGBClassifier(n_estimators=6, enable_categorical=True, n_jobs=1, **options).fit(table, label)
    carried = forest_of_xgboost(model.get_booster())
    np.testing.assert_allclose(answers(carried, table), model.predict_proba(table), atol=1e-6)


def test_xgboost_that_stopped_early_answers_with_its_best_rounds(shop, tmp_path):
    table, label = shop[0], shop[1] > 0
    model = xgboost.XGBClassifier(n_estimators=200, enable_categorical=True, n_jobs=1, early_stopping_rounds=3)
    model.fit(table[:200], label[:200], eval_set=[(table[200:], label[200:])], verbose=False)
    model.save_model(tmp_path / "model.json")
    carried = forest_of_xgboost(xgboost.Booster(model_file=tmp_path / "model.json"))
    assert len(carried.forest.roots) == model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    np.testing.assert_allclose(answers(carried, table), model.predict_proba(table), atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"zero_as_missing": True},
        {"use_missing": False},
        {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
        {"num_leaves": 80, "min_child_samples": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("classes", [2, 3])
def test_lightgbm_is_carried_over(shop, classes, options):
    table, label = shop[0], np.minimum(shop[1], classes - 1)
    model = lightgbm.LGBMClassifier(n_estimators=6, n_jobs=1, verbose=-1, **options).fit(table, label)
    carried = forest_of_lightgbm(model.booster_)
    np.testing.assert_allclose(answers(carried, table), model.predict_proba(table), atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    ("learner", "options"),
    [
        ("GradientBoostedTreesLearner", {}),
        ("GradientBoostedTreesLearner", {"split_axis": "SPARSE_OBLIQUE"}),
        ("RandomForestLearner", {}),
        ("RandomForestLearner", {"winner_take_all": False}),
        ("CartLearner", {}),
    ],
    ids=str,
)
def test_ydf_is_carried_over(shop, classes, learner, options):
    import ydf

    ydf.verbose(0)
    trees = {} if learner == "CartLearner" else {"num_trees": 6}
    table = shop[0].assign(colour=shop[0]["colour"].astype(object).fillna(""))
    label = np.minimum(shop[1], classes - 1).astype(str)
    model = getattr(ydf, learner)(label="y", num_threads=1, min_examples=2, **trees, **options).train(
        table.assign(y=label)
    )
    expected = model.predict(table)
    expected = np.stack([1 - expected, expected], axis=1) if classes == 2 else expected
    carried = forest_of_ydf(model)
    assert carried.labels == tuple(model.label_classes())
    np.testing.assert_allclose(answers(carried, table), expected, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    ("module", "name", "options"),
    [
        ("tree", "DecisionTreeClassifier", {}),
        ("ensemble", "RandomForestClassifier", {"n_estimators": 6}),
        ("ensemble", "ExtraTreesClassifier", {"n_estimators": 6}),
        ("ensemble", "GradientBoostingClassifier", {"n_estimators": 6}),
        ("ensemble", "GradientBoostingClassifier", {"n_estimators": 6, "init": "zero"}),
        ("ensemble", "HistGradientBoostingClassifier", {"max_iter": 6}),
    ],
    ids=str,
)
def test_trees_of_scikit_learn_are_carried_over(shop, classes, module, name, options):
    made = getattr(importlib.import_module(f"sklearn.{module}"), name)(random_state=0, **options)
    table, label = shop[0].drop(columns="colour"), np.minimum(shop[1], classes - 1)
    takes_gaps = name in ("DecisionTreeClassifier", "RandomForestClassifier", "HistGradientBoostingClassifier")
    table = table if takes_gaps else table.fillna(0.0)
    made.fit(table, label)
    np.testing.assert_allclose(answers(forest_of_sklearn(made), table), made.predict_proba(table), atol=1e-6)


def test_categories_of_histogram_boosting_are_carried_over(shop):
    from sklearn.ensemble import HistGradientBoostingClassifier

    table, label = shop
    model = HistGradientBoostingClassifier(max_iter=8, categorical_features="from_dtype").fit(table, label)
    carried = forest_of_sklearn(model)
    assert (carried.numbers, [*carried.categories.values()]) == (("0", "1", "2"), [("blue", "green", "red")])
    columns = {name: tf.constant(table[column].fillna(-1e38)) for name, column in zip("012", table, strict=False)}
    columns["3"] = tf.constant(table["colour"].astype(object).fillna("").to_numpy(object))
    np.testing.assert_allclose(carried.predict_columns(columns), model.predict_proba(table), atol=1e-6)


# What is refused, and how.


def saved(folder: Path, model: object, name: str = "model.skops") -> str:
    import joblib
    import skops.io

    (skops.io.dump if name.endswith(".skops") else joblib.dump)(model, folder / name)
    return f"{folder}/{name}"


def linear(*steps: object) -> object:
    """A pipeline on two columns, a number and a text."""
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    table = pd.DataFrame({"age": [20.0, 30.0, 40.0, 50.0], "city": ["Bonn", "Ulm", "Bonn", "Ulm"]})
    columns = ColumnTransformer([("city", OneHotEncoder(), ["city"])], remainder="passthrough")
    return make_pipeline(columns, *steps, LogisticRegression()).fit(table, ["no", "no", "yes", "yes"])


def options(path: str, **more: object) -> WrapTableOptions:
    return WrapTableOptions.model_validate({"mode": "wrap", "model": path, **more})


def test_a_pickle_is_not_loaded_unless_it_is_trusted(tmp_path):
    path = saved(tmp_path, linear(), "model.joblib")
    with pytest.raises(TrainingError, match=r"model.joblib: a pickle runs any code .* set trainer.trusted: true"):
        wrapped_table(options(path))
    assert wrapped_table(options(path, trusted=True)).labels == ("no", "yes")


def test_a_step_that_cannot_be_carried_over_is_named(tmp_path):
    from sklearn.preprocessing import PolynomialFeatures

    path = saved(tmp_path, linear(PolynomialFeatures()))
    with pytest.raises(TrainingError, match=r"model.skops: the scikit-learn pipeline has PolynomialFeatures among its"):
        wrapped_table(options(path))


def test_a_classifier_that_cannot_be_carried_over_is_named(tmp_path):
    from sklearn.naive_bayes import GaussianNB

    path = saved(tmp_path, GaussianNB().fit(np.eye(2), [0, 1]))
    with pytest.raises(TrainingError, match="GaussianNB at its end, which cannot be carried over; use one of Logistic"):
        wrapped_table(options(path, columns=("a", "b")))


@pytest.mark.parametrize(("given", "received"), [({}, "none is given"), ({"labels": ["a"]}, "received 1: a")])
def test_labels_are_not_guessed(shop, tmp_path, given, received):
    model = xgboost.XGBClassifier(n_estimators=2, enable_categorical=True, n_jobs=1).fit(shop[0], shop[1] > 0)
    model.save_model(tmp_path / "model.json")
    with pytest.raises(TrainingError, match=f"knows its 2 classes by number only, and {received}; give trainer.labels"):
        wrapped_table(options(f"{tmp_path}/model.json", **given))


def test_columns_are_not_guessed(tmp_path):
    from sklearn.linear_model import LogisticRegression

    path = saved(tmp_path, LogisticRegression().fit(np.eye(2), [0, 1]))
    with pytest.raises(TrainingError, match=r"knows its 2 columns by number only; give trainer\.columns"):
        wrapped_table(options(path))
    assert [*wrapped_table(options(path, columns=("a", "b"))).columns] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.skops", "there is no such file or directory; set trainer.model"),
        (
            "model.onnx",
            "expected the directory of a YDF model, or a file that ends in .keras, .json, .ubj, .txt, .skops",
        ),
        ("model.json", "no XGBoost model can be loaded"),
        ("model.txt", "no LightGBM model can be loaded"),
        ("model.keras", "the model cannot be loaded"),
        ("", "no YDF model can be loaded"),
    ],
)
def test_what_is_no_model_is_said(tmp_path, name, said):
    if name and not name.startswith("none"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(TrainingError, match=said):
        wrapped_table(options(f"{tmp_path}/{name}".rstrip("/")))


def test_the_labels_of_a_model_get_the_names_that_people_read(tmp_path):
    label = LabelOptions(column="bought", names={"yes": "buyer"})
    found = raw_preprocessing(options(saved(tmp_path, linear())), TabularOptions(label=label))
    assert found.label.order == ("no", "buyer")
    assert found.raw == {"age": "number", "city": "category"}


CONFIG = """
name: shop
task: tabular
data: {{path: shop.csv}}
preprocessing: {{label: {{column: bought}}}}
trainer: {{mode: wrap, model: model.skops{more}}}
"""


def config_of(folder: Path, table: str, more: str = "", model: object | None = None) -> str:
    saved(folder, model or linear())
    (folder / "shop.csv").write_text(table)
    (folder / "run.yaml").write_text(CONFIG.format(more=more))
    return f"{folder}/run.yaml"


def test_a_config_takes_columns_and_labels_from_the_model(tmp_path):
    config = load_config(config_of(tmp_path, "age,city,bought\n20,Bonn,no\n50,Ulm,yes\n"))
    assert not config.learns
    assert config.preprocessing.label.order == ("no", "yes")
    assert raw_data(config).kinds == {}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("age,bought\n20,no\n", "there is no column 'city', which the model that trainer.model in the config names"),
        ("age,city,bought\nold,Bonn,no\n", "column 'age' holds text, the model of trainer.model takes numbers there"),
        (
            "age,city,bought\n20,1.5,no\n",
            "column 'city' holds float, the model of trainer.model takes categories there",
        ),
    ],
    ids=["a column is missing", "text for a number", "a number for a category"],
)
def test_data_that_the_model_cannot_take_stop_before_the_run(tmp_path, table, said):
    config = load_config(config_of(tmp_path, table))
    with pytest.raises(BrokenInput, match=said):
        raw_data(config)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["trainer.labels=[yes, no]"], "YAML reads an unquoted yes, no, on or off as true or false"),
        (["trainer.labels=['yes','no']"], "model has the labels no, yes in this order, trainer.labels are yes, no"),
        (["preprocessing.label.order=['yes','no']"], "leave preprocessing.label.order out"),
        (["preprocessing.columns.age=log"], "preprocessing.columns is for models that are trained here"),
        (["trainer.epochs=3"], "unknown key 'trainer.epochs'"),
        (["trainer.model=none.skops"], "there is no such file or directory"),
        (["preprocessing.label.column=city"], "takes the column 'city', which is preprocessing.label.column"),
    ],
    ids=str,
)
def test_a_config_that_contradicts_the_model_is_refused(tmp_path, overrides, said):
    with pytest.raises(BrokenInput, match=said):
        load_config(config_of(tmp_path, "age,city,bought\n20,Bonn,no\n"), overrides)
