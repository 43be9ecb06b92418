"""The signature `explain`: Shapley values by their definition, of trained models of all tasks, served and exported."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from math import factorial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from PIL import Image
from sklearn.datasets import load_digits
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tfx.components.trainer.fn_args_utils import FnArgs

from benchmarks.harness.pipelines import transform_graph
from components.run_report.charts import importance_chart
from components.run_report.evaluation import ShownExample, ShownInput
from components.run_report.finished_run import FinishedRun, RunArtifact
from components.run_report.reasons import explained_run
from pipeline.cli import main
from serving.client.grpc import GrpcClient
from serving.client.rest import RestClient
from serving.reference_predictions import example_id, read_examples
from serving.server.app import EmbeddedServer
from serving.server.options import ServerOptions
from serving.session_model import SessionModel
from serving.signatures import image
from serving.signatures.common import VOCABULARY, Labels, export
from serving.signatures.explain import (
    MOST_BACKGROUND,
    TABLE_SAMPLES,
    background_count,
    drawn_values,
    exact_values,
    explained_table,
)
from tests.pipeline.conftest import strings
from tests.serving import colour_photos
from tests.trainers import test_tabular_trainer as tables
from tests.trainers import test_text_models as texts
from trainers.artifacts import frozen_model
from trainers.tabular import background
from trainers.tabular.background import background_rows
from trainers.tabular.options import TabularTrainerOptions
from trainers.tabular.train import run_fn
from transform.options import LabelOptions, TabularOptions
from transform.tabular import preprocessing_fn as tabular_preprocessing_fn

EXPLAIN = '{"explain": {}}'


def shapley(value: Callable[[frozenset[int]], float], parts: int) -> np.ndarray:
    """By the definition: what a part adds to each coalition of the others, weighted by the orders in which it does."""
    found = np.zeros(parts)
    for part in range(parts):
        others = [other for other in range(parts) if other != part]
        for size in range(parts):
            weight = factorial(size) * factorial(parts - size - 1) / factorial(parts)
            for members in combinations(others, size):
                found[part] += weight * (value(frozenset({*members, part})) - value(frozenset(members)))
    return found


def of_game(game: np.ndarray) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """The score of coalitions: float32 [2 ** parts, backgrounds] by the number whose bits are the members."""
    parts = int(np.log2(len(game)))
    return lambda members, numbers: tf.gather_nd(
        tf.constant(game, tf.float32),
        tf.stack([tf.reduce_sum(tf.where(members, 2 ** tf.range(parts), 0), axis=1), numbers], axis=1),
    )


def test_all_coalitions_give_shapley_values_by_their_definition():
    game = np.random.default_rng(0).uniform(size=[2**5, 3])
    base, found = exact_values(of_game(game), 5, 3, at_once=7)
    means = game.mean(axis=1)
    np.testing.assert_allclose(found, shapley(lambda members: means[sum(1 << one for one in members)], 5), atol=1e-6)
    assert float(base) == pytest.approx(means[0], abs=1e-6)


def test_drawn_orders_come_close_to_all_of_them_and_closest_where_parts_add_to_the_logit():
    chance = np.random.default_rng(1)
    members = (np.arange(2**6)[:, None] >> np.arange(6)) % 2
    added = 1 / (1 + np.exp(-(members @ chance.normal(scale=2, size=[6, 2]) + chance.normal(size=2))))
    pairs = np.stack([np.einsum("ca,ab,cb->c", members, chance.normal(size=[6, 6]), members) for _ in range(2)], axis=1)
    within = 0.05 + 0.9 * (pairs - pairs.min()) / (pairs.max() - pairs.min())
    for game, samples, error in (
        (added, 16, 0.005),
        (within, 128, 0.01),
        (chance.uniform(size=[2**6, 2]), 128, 0.08),
    ):
        game[-1] = game[-1, 0]  # with all parts, there is no background
        if game is added:
            game[:, 1] = game[:, 0]
        full = tf.constant(game[-1, 0], tf.float32)
        base, found = drawn_values(of_game(game), 6, tf.constant(game[0], tf.float32), full, samples, at_once=50)
        means = game.mean(axis=1)
        expected = shapley(lambda coalition, of=means: of[sum(1 << one for one in coalition)], 6)
        np.testing.assert_allclose(found, expected, atol=error)
        assert float(base + tf.reduce_sum(found)) == pytest.approx(game[-1, 0], abs=1e-5)


def test_parts_that_are_as_in_the_background_add_nothing_and_ask_for_no_score():
    game = np.random.default_rng(2).uniform(size=[2**4, 1])
    game = game[np.arange(2**4) & 0b1010]  # parts 0 and 2 make no difference
    asked = []

    def score(members: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
        asked.append(len(members))
        return of_game(game)(members, numbers)

    empty, full = tf.constant(game[0], tf.float32), tf.constant(game[-1, 0], tf.float32)
    same = tf.constant([[True, False, True, False]])
    _, found = drawn_values(score, 4, empty, full, 8, 100, same)
    np.testing.assert_allclose(found, drawn_values(score, 4, empty, full, 8, 100)[1], atol=0.01)
    assert found[0] == found[2] == 0 and asked == [8, 24]
    assert drawn_values(score, 4, empty, empty[0], 8, 100, tf.fill([1, 4], True))[1].numpy().tolist() == [0] * 4


def test_of_many_columns_the_strongest_is_that_of_exact_values_on_95_percent_of_rows(tmp_path):
    names = [f"c{number}" for number in range(11)]
    chance = np.random.default_rng(3)
    rows, others = (np.round(chance.normal(size=[count, 11]), 1).astype(np.float32) for count in (40, 16))
    rows[:, :4], others[:, :4] = np.sign(rows[:, :4]), np.sign(others[:, :4])  # often as in the background
    weights = tf.constant(chance.normal(size=[11, 1]), tf.float32)

    def predict(columns: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The mean of a logistic regression and of a tree of four leaves, as a blend has it."""
        values = tf.concat([tf.cast(columns[name], tf.float32) for name in names], axis=1)
        leaf = tf.where(values[:, 4] > 0, tf.where(values[:, 5] > 0.5, 0.9, 0.4), tf.where(values[:, 0] > 0, 0.6, 0.1))
        positive = (tf.sigmoid(tf.matmul(values, weights)[:, 0]) + leaf) / 2
        return tf.stack([1 - positive, positive], axis=1)

    (tmp_path / VOCABULARY).write_text("no\nyes\n")
    asked, background = ({n: of[:, [place]] for place, n in enumerate(names)} for of in (rows, others))
    for of in (asked, background):  # dtypes that change from column to column
        of.update({name: of[name].astype(np.int64) for name in ("c1", "c3")})
    labels, missing = Labels(str(tmp_path / VOCABULARY)), dict.fromkeys(names, -1e38) | {"c1": -1, "c3": -1}
    columns = {name: tf.constant(values) for name, values in asked.items()}
    explain = tf.function(
        lambda: explained_table(columns, background, predict, labels, TABLE_SAMPLES, missing), autograph=False
    )
    found = explain()

    members = (np.arange(2**11)[:, None] >> np.arange(11)) % 2 == 1
    sizes = members.sum(axis=1, keepdims=True)
    orders = np.array([factorial(size) * factorial(10 - size) for size in range(11)]) / factorial(11)
    shares = np.where(members, orders[np.maximum(sizes - 1, 0)], -orders[np.minimum(sizes, 10)])
    exact = []
    for row, label in zip(rows, found["label"].numpy(), strict=True):
        mixed = np.where(members[:, None], row, others).reshape(-1, 11)
        scores = predict({name: mixed[:, [place]] for place, name in enumerate(names)})[:, int(label == b"yes")]
        exact.append(shares.T @ scores.numpy().reshape(2**11, -1).mean(axis=1, dtype=np.float64))
    told = found["contributions"].numpy()
    assert (np.abs(told).argmax(axis=1) == np.abs(exact).argmax(axis=1)).sum() >= 38
    assert np.sqrt(np.mean((told - exact) ** 2)) < 0.003


KEPT = ["tags", "colours", "age (years)", "1st city"]  # lists, a number and a category, some of them missing
OF_TABLE = TabularOptions(
    label=LabelOptions(column="bought"),
    columns={name: tables.OPTIONS.columns[name] for name in ("tags", "colours")},
    minimum_category_count=1,
)


def trained_table(folder: Path, serialized: list[bytes], spec: dict, options: TabularOptions, **trainer: Any) -> str:
    """A SavedModel with explanations, of raw examples."""
    with tf.io.TFRecordWriter(f"{folder}/examples.gz", "GZIP") as writer:
        for record in serialized:
            writer.write(record)
    tf.compat.v1.reset_default_graph()  # other tests leave annotations there, which tft would read
    config = {
        "preprocessing": options.model_dump_json(),
        "trainer": TabularTrainerOptions(**trainer).model_dump_json(),
        "code_fingerprint": "code",
        "serving": EXPLAIN,
    }
    transform_graph(tabular_preprocessing_fn, config, spec, f"{folder}/examples.gz", str(folder))
    run_fn(
        FnArgs(
            train_files=[f"{folder}/examples.gz"],
            eval_files=[f"{folder}/examples.gz"],
            model_run_dir=f"{folder}/model_run",
            transform_output=f"{folder}/graph",
            serving_model_dir=f"{folder}/trained/1",
            custom_config=config,
        )
    )
    return f"{folder}/trained/1"


@dataclass(frozen=True)
class Table:
    """A trained model of columns with several values in a cell, and missing ones; and its background."""

    path: str
    session: SessionModel
    background: Mapping[str, np.ndarray]


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Table:
    rows = [tables.example({name: row[name] for name in (*KEPT, "bought") if name in row}) for row in tables.TABLE]
    spec = {name: tables.SPEC[name] for name in (*KEPT, "bought")}
    trainer = {"model": "linear", "epochs": 30, "learning_rate": 0.05}
    kept: dict[str, np.ndarray] = {}

    def noted(*arguments: Any) -> dict[str, np.ndarray]:
        kept.update(background_rows(*arguments))
        return kept

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(background, "background_rows", noted)
        path = trained_table(tmp_path_factory.mktemp("table"), rows, spec, OF_TABLE, **trainer)
    return Table(path, SessionModel(path), kept)


def columns_of(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    return {name: values for name, values in tables.columns_of(rows).items() if name in KEPT}


def test_a_trained_model_of_few_columns_is_explained_by_exact_shapley_values(table):
    asked = columns_of(tables.rows(6, seed=3))
    found = table.session.run("explain", asked)
    names = [name.decode() for name in found["parts"][0]]
    assert sorted(names) == sorted(KEPT)
    assert background_count(4, MOST_BACKGROUND, TABLE_SAMPLES) == MOST_BACKGROUND
    members = (np.arange(2**4)[:, None] >> np.arange(4)) % 2 == 1
    for row in range(6):
        mixed = {}
        for place, name in enumerate(names):
            own = np.asarray(asked[name][row], asked[name].dtype).reshape(-1)
            others = table.background[name].astype(own.dtype)
            width = max(len(own), others.shape[1])
            fill = tables.MISSING[tables.DTYPES[name]]
            own, others = (
                np.concatenate([one, np.full([*one.shape[:-1], width - one.shape[-1]], fill, one.dtype)], axis=-1)
                for one in (own, others)
            )
            values = np.where(members[:, place, None, None], own, others[None]).reshape(-1, width)
            mixed[name] = values if name == "colours" else values[:, 0]
        answers = table.session.run("classify", mixed)
        scores = answers["probabilities"][answers["labels"] == found["label"][row]]
        means = scores.reshape(2**4, -1).astype(np.float64).mean(axis=1)
        expected = shapley(lambda coalition, of=means: of[sum(1 << one for one in coalition)], 4)
        np.testing.assert_allclose(found["contributions"][row], expected, atol=1e-5)
        assert found["base"][row] == pytest.approx(means[0], abs=1e-6)
    assert np.abs(found["contributions"]).max() > 0.05


def test_base_and_contributions_add_up_to_the_served_probability_of_the_served_label(table):
    asked = columns_of([*tables.TABLE, {}, {"colours": ["never", "seen"] * 3}])
    found, answers = (table.session.run(name, asked) for name in ("explain", "classify"))
    np.testing.assert_array_equal(found["label"], answers["labels"][:, 0])
    np.testing.assert_allclose(found["probability"], answers["probabilities"][:, 0], atol=1e-6)
    np.testing.assert_allclose(found["base"] + found["contributions"].sum(axis=1), found["probability"], atol=1e-5)
    assert found["error"].tolist() == [b""] * 302
    (alone,) = table.session.run("explain", {name: values[3:4] for name, values in asked.items()})["contributions"]
    np.testing.assert_allclose(alone, found["contributions"][3], atol=1e-6)
    nothing = table.session.run("explain", {name: values[:0] for name, values in asked.items()})
    assert {name: len(values) for name, values in nothing.items()} == dict.fromkeys(found, 0)


CAUSES = [f"c{number}" for number in range(12)]


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    """The base path of a model of twelve columns of noise, of which the fourth alone tells the label."""
    folder = tmp_path_factory.mktemp("planted")
    records = []
    for row in np.random.default_rng(5).normal(size=[400, 12]).astype(np.float32):
        made = tf.train.Example()
        for name, value in zip(CAUSES, row, strict=True):
            made.features.feature[name].float_list.value.append(value)
        made.features.feature["label"].bytes_list.value.append(b"yes" if row[3] > 0 else b"no")
        records.append(made.SerializeToString())
    spec = {**dict.fromkeys(CAUSES, tf.io.FixedLenFeature([], tf.float32)), "label": tf.io.VarLenFeature(tf.string)}
    options = TabularOptions(label=LabelOptions(column="label"))
    trained_table(folder, records, spec, options, model="trees", trees={"count": 30})
    return folder / "trained"


def noise(count: int) -> dict[str, np.ndarray]:
    values = np.random.default_rng(6).normal(size=[count, 12]).astype(np.float32)
    return {name: values[:, number] for number, name in enumerate(CAUSES)}


def test_a_planted_cause_is_named_first_over_rest_and_grpc_as_in_the_graph(planted):
    asked = noise(100)
    found = SessionModel(str(planted / "1")).run("explain", asked)
    first = found["parts"][np.arange(100), np.abs(found["contributions"]).argmax(axis=1)]
    assert (first == b"c3").sum() >= 99
    np.testing.assert_allclose(found["base"] + found["contributions"].sum(axis=1), found["probability"], atol=1e-5)
    with (
        EmbeddedServer({"planted": str(planted)}, ServerOptions(rest_port=0, grpc_port=0)) as server,
        RestClient(port=server.rest_port) as rest,
        GrpcClient(port=server.grpc_port) as grpc,
    ):
        for client in (rest, grpc):
            served = client.predict("planted", {name: values[:8] for name, values in asked.items()}, "explain")
            assert served.keys() == found.keys()
            for name, values in served.items():
                if found[name].dtype == object:
                    assert strings(values) == strings(found[name][:8])
                else:
                    np.testing.assert_allclose(values, found[name][:8], atol=1e-6)


def test_predict_prints_reasons_and_a_model_without_them_says_how_to_have_them(planted, tmp_path):
    (tmp_path / "rows.csv").write_text(",".join(CAUSES) + "\n" + ",".join(["0.1", "0.1", "0.1", "2", *["0.1"] * 8]))
    with EmbeddedServer({"planted": str(planted)}, ServerOptions(rest_port=0, grpc_port=0)) as server:
        command = ["predict", "planted", str(tmp_path / "rows.csv"), "--explain", "--port", str(server.rest_port)]
        shown = CliRunner().invoke(main, command, env={"COLUMNS": "300"})
        assert shown.exit_code == 0, shown.output
        assert re.search(r"yes (0\.9\d\d|1\.000) .* c3 \+0\.\d\d\d", " ".join(shown.output.split())), shown.output
        (answer,) = (json.loads(line) for line in CliRunner().invoke(main, [*command, "--json"]).output.splitlines())
        assert answer["base"] + sum(answer["contributions"]) == pytest.approx(answer["probability"], abs=1e-5)
        refused = CliRunner().invoke(main, [*command, "--signature", "classify"])
        assert refused.exit_code == 2 and "leave --signature classify out" in refused.output


def test_the_report_has_the_reasons_of_mistakes_and_the_mean_contribution_of_columns(planted, tmp_path):
    shutil.copytree(planted / "1", tmp_path / "model/Format-Serving")
    (tmp_path / "examples/Split-eval").mkdir(parents=True)
    shutil.copy(planted.parent / "examples.gz", tmp_path / "examples/Split-eval/data.gz")
    artifacts = {name: RunArtifact(str(tmp_path / name), {}) for name in ("model", "examples")}
    run = FinishedRun("planted", "run", artifacts=artifacts)
    record = next(iter(read_examples([str(planted.parent / "examples.gz")])))
    mistake = ShownExample(example_id(record), "no", "yes", 0.9, ShownInput(()))
    explained = explained_run(run, [mistake])
    assert explained.importance.rows > 10 and explained.importance.parts[0][0] == "c3"
    (reasons,) = explained.of_mistakes.values()
    assert reasons.largest[0][0] == "c3" and reasons.heat == ()
    told = reasons.base + sum(value for _, value in reasons.largest)
    assert told == pytest.approx(reasons.probability, abs=0.1)
    assert "c3" in importance_chart(explained.importance.parts)
    assert explained_run(FinishedRun("planted", "run"), []) is None

    # One that gives no reasons is not loaded, which it could not be.
    file = tmp_path / "model/Format-Serving/saved_model.pb"
    saved = SavedModel.FromString(file.read_bytes())
    del saved.meta_graphs[0].signature_def["explain"]
    file.write_bytes(saved.SerializeToString())
    shutil.rmtree(file.parent / "variables")
    assert explained_run(run, [mistake]) is None


EXPLAINING_OPERATIONS = {"All", "StatelessRandomGetKeyCounter", "StatelessRandomUniformV2", "While"}


def test_all_operations_of_the_exports_are_core(planted, table):
    for path in (planted / "1", Path(table.path)):
        content = SavedModel.FromString((path / "saved_model.pb").read_bytes())
        graphs = [content.meta_graphs[0].graph_def, *content.meta_graphs[0].graph_def.library.function]
        found = {node.op for graph in graphs for node in getattr(graph, "node", getattr(graph, "node_def", ()))}
        assert found - tables.CORE_OPERATIONS - EXPLAINING_OPERATIONS == set()
        of_requests = texts.operations_of_requests(str(path))
        assert "LookupTableFindV2" in of_requests
        assert {name for name in of_requests if name.startswith("InitializeTable")} == set()


def test_words_are_explained_and_add_up(tmp_path):
    chance = np.random.default_rng(0)
    with tf.io.TFRecordWriter(f"{tmp_path}/examples.gz", "GZIP") as writer:
        for number in range(200):
            word, label = (("dull", "bad"), ("fine", "good"))[number % 2]
            said = " ".join([*chance.choice(["film", "the"], size=chance.integers(1, 4)), word])
            writer.write(texts.record(said.encode(), label))
    path = texts.exported(
        tmp_path,
        f"{tmp_path}/examples.gz",
        {"model": "ngrams", "learning_rate": 0.03, "epochs": 5},
        serving='{"explain": {"samples": 8}}',
    )
    session = SessionModel(path)
    long = "the film " * 99 + "fine"
    unspaced = "\u6620\u753bfine  \u7684".encode()  # characters of scripts without spaces are words
    asked = {"text": np.array(["the fine film", "dull", *texts.ODD_TEXTS[:5:2], unspaced, long], object)}
    found, answers = (session.run(name, asked) for name in ("explain", "classify"))
    np.testing.assert_array_equal(found["label"], answers["labels"][:, 0])
    np.testing.assert_allclose(found["probability"], answers["probabilities"][:, 0], atol=1e-6)
    np.testing.assert_allclose(found["base"] + found["contributions"].sum(axis=1), found["probability"], atol=1e-5)
    assert found["parts"][0, :4].tolist() == [b"the", b"fine", b"film", b""]
    assert found["label"][0] == b"good" and found["contributions"][0].argmax() == 1
    assert found["contributions"][0, 3:].tolist() == [0] * (found["contributions"].shape[1] - 3)
    words = [part.decode() for part in found["parts"][-2, :5]]
    assert words == ["\u6620", "\u753b", "fine", "\u7684", ""] and found["contributions"][-2].argmax() == 2
    # 199 words are 50 runs of four words at most.
    assert found["contributions"].shape[1] == 50
    assert found["parts"][-1, 0] == b"the film the film" and found["parts"][-1, -1] == b"the film fine"
    assert found["label"][-1] == b"good" and found["contributions"][-1].argmax() == 49
    assert session.run("explain", {"text": np.array([], object)})["parts"].shape == (0, 0)


class Photos(tf.Module):
    """PNG files of 32 pixels; anything else has an error."""

    def __call__(self, features: Mapping[str, tf.SparseTensor]) -> dict[str, tf.Tensor]:
        files = tf.sparse.to_dense(features["image"], "")[:, 0]
        good = image.begins_with(files, b"\x89PNG")
        blank = tf.io.encode_png(tf.zeros([32, 32, 3], tf.uint8))
        pixels = tf.map_fn(
            lambda file: tf.io.decode_png(file, 3), tf.where(good, files, blank), fn_output_signature=tf.uint8
        )
        scaled = tf.cast(tf.reshape(pixels, [-1, 32, 32, 3]), tf.float32) / 127.5 - 1
        return {"image": scaled, "error": tf.where(good, "", "no PNG file")}


def marked_digits(seed: int) -> tuple[list[bytes], np.ndarray]:
    """Photos of digits as PNG files; those of label 1 have a white mark in the upper right corner."""
    chance = np.random.default_rng(seed)
    digits = load_digits().images[chance.integers(0, 1797, 120)]
    labels = chance.integers(0, 2, 120)
    files = []
    for digit, label in zip(digits, labels, strict=True):
        pixels = np.kron(digit / 16 * 160, np.ones([4, 4])).astype(np.uint8)
        if label:
            pixels[:4, -4:] = 255
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        files.append(file.getvalue())
    return files, labels


def test_a_mark_in_the_corner_that_tells_the_label_lights_up_there_and_a_damaged_photo_has_an_error(tmp_path):
    files, labels = marked_digits(0)
    transform = Photos()
    spec = {"image": tf.io.VarLenFeature(tf.string)}
    raw = tf.io.parse_example([colour_photos.example(image=file) for file in files], spec)
    keras.utils.set_random_seed(0)
    pixels = keras.Input([32, 32, 3], name="image")
    hidden = keras.layers.Dense(8, activation="relu")(keras.layers.Flatten()(keras.layers.AveragePooling2D(2)(pixels)))
    model = keras.Model({"image": pixels}, keras.layers.Dense(2, activation="softmax")(hidden))
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy")
    model.fit({"image": transform(raw)["image"]}, labels, epochs=60, verbose=0)
    (tmp_path / VOCABULARY).write_text("plain\nmarked\n")
    labels_of = Labels(str(tmp_path / VOCABULARY))
    served = image.served_model(transform, frozen_model(model), labels_of, spec, "label", classes=2, explain=16)
    export(served, f"{tmp_path}/export")
    session = SessionModel(f"{tmp_path}/export")

    files, labels = marked_digits(1)
    asked = {"image_bytes": np.array([*files[:20], b"no photo"], object)}
    found, answers = (session.run(name, asked) for name in ("explain", "classify"))
    np.testing.assert_array_equal(found["label"], answers["labels"][:, 0])
    np.testing.assert_allclose(found["probability"], answers["probabilities"].max(axis=1), atol=1e-6)
    assert found["contributions"].shape == (21, 8, 8)
    together = found["base"] + found["contributions"].sum(axis=(1, 2))
    np.testing.assert_allclose(together, found["probability"], atol=1e-5)
    assert (found["label"][-1], found["error"][-1], together[-1]) == (b"", b"no PNG file", 0)
    assert not found["contributions"][-1].any() and not found["error"][:-1].any()
    marked = np.flatnonzero(labels[:20] == 1)
    assert (found["label"][marked] == b"marked").all() and len(marked) > 5
    strongest = np.abs(found["contributions"][marked]).reshape(-1, 64).argmax(axis=1)
    assert (strongest == 7).all()  # the corner

    # The weights are in the file once.
    assert Path(f"{tmp_path}/export/saved_model.pb").read_bytes().count(model.get_weights()[0].tobytes()) == 1
