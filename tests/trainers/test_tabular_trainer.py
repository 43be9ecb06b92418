"""Training of tables: what the model learns and how it takes unknown values."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tfx.components.trainer.fn_args_utils import FnArgs

from benchmarks.harness.pipelines import transform_graph
from serving import reference_predictions
from serving.reference_predictions import FILE_NAME
from serving.session_model import SessionModel
from tests.pipeline.conftest import answers_over_both
from tests.trainers.test_fitting import killed_after
from trainers import row_store
from trainers.blending import cross_entropies
from trainers.options import TunerOptions
from trainers.splits import TransformedSplit, TransformGraph
from trainers.tabular.models import build_model, model_inputs
from trainers.tabular.networks import _hats, build_networks, knots, train_networks
from trainers.tabular.options import TabularTrainerOptions
from trainers.tabular.train import fit, run_fn, shuffled_batches, tuner_fn
from transform.options import LabelOptions, TabularOptions
from transform.tabular import preprocessing_fn


def split(rows: int = 400, seed: int = 0) -> TransformedSplit:
    """The label follows the category alone where it is known, and the number otherwise."""
    source = np.random.default_rng(seed)
    numbers = source.normal(size=[rows, 1]).astype(np.float32)
    categories = source.integers(-1, 2, size=[rows, 1])
    labels = np.where(categories[:, 0] >= 0, categories[:, 0], numbers[:, 0] > 0).astype(np.int64)
    return TransformedSplit(
        ids=[str(row) for row in range(rows)],
        features={"numbers": np.concatenate([numbers, np.zeros_like(numbers)], axis=1), "categories": categories},
        labels=labels,
        left_out=0,
        fingerprint="",
    )


def trained(options: TabularTrainerOptions) -> keras.Model:
    keras.utils.set_random_seed(options.seed)
    model = build_model(split().features, vocabulary_size=2, classes=2, options=options)
    fit(model, split(), options)
    return model


def accuracy(model: keras.Model, test: TransformedSplit) -> float:
    return float((model.predict(test.features, verbose=0).argmax(axis=1) == test.labels).mean())


def test_the_linear_model_learns_categories():
    model = trained(TabularTrainerOptions(hidden_units=(), epochs=60, learning_rate=0.1))
    assert accuracy(model, split(seed=1)) > 0.85


def test_the_network_learns_what_a_linear_model_cannot():
    model = trained(TabularTrainerOptions(hidden_units=(32,), epochs=60, learning_rate=0.03, dropout=0.0))
    assert accuracy(model, split(seed=1)) > 0.95


def test_early_stopping_ends_before_the_last_epoch_and_the_model_is_good():
    options = TabularTrainerOptions(epochs=500, early_stopping_patience=3, learning_rate=0.03)
    model = build_model(split().features, vocabulary_size=2, classes=2, options=options)
    fit(model, split(), options)
    assert model.optimizer.iterations.numpy() < 500 * 2
    assert accuracy(model, split(seed=1)) > 0.9


def test_an_unknown_category_that_training_never_met_adds_nothing():
    known = split()
    rows = known.features["categories"][:, 0] >= 0
    only_known = TransformedSplit(
        ids=[], features={name: values[rows] for name, values in known.features.items()}, labels=known.labels[rows],
        left_out=0, fingerprint="",
    )  # fmt: skip
    options = TabularTrainerOptions(hidden_units=(), epochs=30, learning_rate=0.1)
    model = build_model(only_known.features, vocabulary_size=2, classes=2, options=options)
    fit(model, only_known, options)
    bias_and_number = model.predict(
        {"numbers": np.zeros([1, 2], np.float32), "categories": np.array([[-1]])}, verbose=0
    )
    (dense,) = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    expected = np.exp(dense.bias.numpy()) / np.exp(dense.bias.numpy()).sum()
    np.testing.assert_allclose(bias_and_number[0], expected, atol=1e-6)


def test_the_same_seed_gives_the_same_model():
    options = TabularTrainerOptions(epochs=3)
    first, second = (trained(options).predict(split().features, verbose=0) for _ in range(2))
    # Threads may add in another order.
    np.testing.assert_allclose(first, second, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "trees", "warm_start": True}, "model: trees does not go on from"),
        ({"model": "network", "hidden_units": ()}, "needs hidden_units"),
        ({"model": "linear", "minutes": 1}, "model: linear ends by epochs"),
        ({"warm_start": True, "minutes": 1}, "model: auto ends by epochs"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        TabularTrainerOptions(**options)


def test_hat_functions_are_one_at_their_knot_linear_in_between_and_add_up_to_one():
    values = np.array([[0, 5], [1, 5], [3, 5]], np.float32)
    assert knots(values[:, 0], rows=3).tolist() == [0, 1, 3] and knots(values[:, 1], rows=3).tolist() == []
    numbers = keras.Input([2])
    hats = keras.Model(numbers, _hats(numbers, values))
    found = hats.predict(np.array([[-9, 0], [0, 0], [0.25, 0], [1, 0], [2, 0], [99, 0]], np.float32), verbose=0)
    expected = [[1, 0, 0], [1, 0, 0], [0.75, 0.25, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1]]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # Each column for itself, however many there are, and whatever stands beside an infinite number.
    many = np.random.default_rng(0).normal(size=[3000, 20]).astype(np.float32)
    asked = np.concatenate([many[:50], np.full([1, 20], np.inf), np.full([1, 20], -np.inf)]).astype(np.float32)
    numbers = keras.Input([20])
    found = keras.Model(numbers, _hats(numbers, many)).predict(asked, verbose=0)
    expected = [
        np.interp(column, own, one)
        for column, own in zip(asked.T, (knots(column, rows=3000) for column in many.T), strict=True)
        for one in np.eye(len(own))
    ]
    np.testing.assert_allclose(found, np.transpose(expected), atol=1e-3)
    assert _hats(numbers, np.zeros([3, 2], np.float32)) is None


def test_of_networks_side_by_side_none_learns_from_the_rows_that_it_does_not_see():
    held_out = np.arange(400)[:, None] % 2 == np.arange(2)
    options = TabularTrainerOptions(hidden_units=(8,), epochs=1)
    asked = split(seed=1).features

    def network(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the first of the two says of new rows, and what each says of its own held out rows."""
        trained = train_networks(replace(split(), labels=labels), held_out, 2, 2, options, {})
        parts = build_networks(split().features, 2, 2, 2, options)
        parts.set_weights(trained.model.get_weights())
        return parts.predict(asked, verbose=0)[:, 0], trained.probabilities

    first, told = network(split().labels)
    again, _ = network(np.where(held_out[:, 0], 1 - split().labels, split().labels))
    np.testing.assert_allclose(first, again, atol=1e-5)
    other, _ = network(np.where(held_out[:, 1], 1 - split().labels, split().labels))
    assert np.abs(first - other).max() > 0.01
    np.testing.assert_allclose(told.sum(axis=1), 1, atol=1e-5)


def test_each_pass_has_every_row_once_in_a_new_order():
    rows = {"x": np.arange(10, dtype=np.float32)}, np.arange(10)
    batches = shuffled_batches(rows, batch_size=4, seed=0).take(6).as_numpy_iterator()
    seen = [features["x"].tolist() for features, labels in batches if features["x"].tolist() == labels.tolist()]
    assert [len(batch) for batch in seen] == [4, 4, 2, 4, 4, 2]
    first, second = list(chain(*seen[:3])), list(chain(*seen[3:]))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


OPTIONS = TabularOptions(
    label=LabelOptions(column="bought"),
    columns={
        "joined": "datetime",
        "review": {"kind": "text", "minimum_term_count": 1, "maximum_length": 20},
        "self": "boolean",
        "tags": {"kind": "list", "maximum_length": 6},
        "colours": {"kind": "list", "separator": ";"},
        "class": {"kind": "hash", "buckets": 30},
        "A": "log",
        "a": "quantile_normal",
    },
    crosses=(("self", "class"),),
    minimum_category_count=1,
)
# Names that no argument of a Python function could have, two of them the same but for their case.
DTYPES = {
    "joined": tf.string, "review": tf.string, "self": tf.string, "tags": tf.string, "colours": tf.string,
    "class": tf.int64, "A": tf.float32, "a": tf.float32, "1st city": tf.string, "age (years)": tf.int64,
}  # fmt: skip
SPEC = {name: tf.io.VarLenFeature(dtype) for name, dtype in (DTYPES | {"bought": tf.string}).items()}
MISSING = {tf.string: "", tf.int64: -(2**31), tf.float32: -1e38}
WORDS = ["fine", "dull", "film", "cast", "plot"]
Row = dict[str, Any]


def rows(count: int, seed: int = 0) -> list[Row]:
    """What is bought follows from the sentence, the list and the date, in different rows; some values are missing."""
    chance = np.random.default_rng(seed)
    made = []
    for number in range(count):
        yes = bool(chance.integers(2))
        said, tagged = number % 3 != 1, number % 3 != 2
        day, hour = chance.integers(10, 29), chance.integers(10, 24)
        row: Row = {
            "joined": f"20{chance.integers(10, 26)}-0{2 if yes else 8}-{day} {hour}:00",
            "review": " ".join([*chance.choice(WORDS[2:], size=3), ("fine" if yes else "dull") if said else "film"]),
            "self": str(chance.choice(["yes", "no", "TRUE", "f"])),
            "tags": "|".join(["new", *(["red" if yes else "blue"] if tagged else [])][:: chance.choice([1, -1])]),
            "colours": [str(colour) for colour in chance.choice(["a", "b", "c"], size=chance.integers(0, 4))],
            "class": int(chance.integers(100)),
            "A": float(np.float32(chance.lognormal(sigma=2))),
            "a": float(np.float32(chance.lognormal(sigma=2))),
            "1st city": str(chance.choice(["Oslo", "Rome ", " Lima"])),
            "age (years)": int(chance.integers(18, 90)),
            "bought": "yes" if yes else "no",
        }
        for name in [name for name in DTYPES if chance.random() < 0.05]:
            row.pop(name)
        made.append(row)
    return made


def example(row: Row) -> bytes:
    result = tf.train.Example()
    for name, value in row.items():
        feature = result.features.feature[name]
        values = value if isinstance(value, list) else [value]
        if SPEC[name].dtype == tf.string:
            feature.bytes_list.value.extend(one.encode() for one in values)
        elif SPEC[name].dtype == tf.float32:
            feature.float_list.value.extend(values)
        else:
            feature.int64_list.value.extend(values)
    return result.SerializeToString()


def columns_of(table: list[Row]) -> dict[str, np.ndarray]:
    """A request: each column as a vector, that of several values as an array filled up with "" at the end."""
    columns = {}
    for name, dtype in DTYPES.items():
        values = [row.get(name, MISSING[dtype]) for row in table]
        if name == "colours":
            lists = [value if isinstance(value, list) else [] for value in values]
            width = max(1, *map(len, lists))
            values = [[*cell, *[""] * (width - len(cell))] for cell in lists]
        columns[name] = np.array(values, object if dtype == tf.string else dtype.as_numpy_dtype)
    return columns


def transformed_table(folder: Path, table: list[Row]) -> None:
    """The examples of a table and Transform's graph of them, which does not depend on the trainer."""
    tf.compat.v1.reset_default_graph()  # other tests leave annotations there, which tft would read
    with tf.io.TFRecordWriter(f"{folder}/examples.gz", "GZIP") as writer:
        for row in table:
            writer.write(example(row))
    config = {"preprocessing": OPTIONS.model_dump_json()}
    transform_graph(preprocessing_fn, config, SPEC, f"{folder}/examples.gz", str(folder))


def train(table: Path, folder: Path, base_model: str = "", serving: str = "{}", **trainer: Any) -> str:
    options = TabularTrainerOptions(**{"warm_start": True} | trainer)
    config = {
        "preprocessing": OPTIONS.model_dump_json(), "trainer": options.model_dump_json(), "code_fingerprint": "code",
        "serving": serving,
    }  # fmt: skip
    run_fn(
        FnArgs(
            train_files=[f"{table}/examples.gz"],
            eval_files=[f"{table}/examples.gz"],
            model_run_dir=f"{folder}/model_run",
            transform_output=f"{table}/graph",
            serving_model_dir=f"{folder}/model/Format-Serving",
            base_model=base_model,
            custom_config=config,
        )
    )
    return f"{folder}/model/Format-Serving"


TABLE = rows(300)


CORE_OPERATIONS = {
    "Abs", "Add", "AddN", "AddV2", "Any", "ArgMax", "AsString", "AssignVariableOp", "BiasAdd", "BitwiseAnd",
    "BroadcastTo", "Cast", "ConcatV2", "Const", "Cos", "Cumsum", "DenseBincount", "DisableCopyOnRead", "DivNoNan",
    "Einsum", "Equal", "ExpandDims", "Fill", "FloorDiv", "FloorMod", "GatherNd", "GatherV2", "Greater", "GreaterEqual",
    "HashTableV2", "Identity", "InitializeTableFromTextFileV2", "IsFinite", "IsNan", "LeftShift", "Less", "LessEqual",
    "Log", "Log1p", "LogicalAnd", "LogicalNot", "LogicalOr", "LookupTableFindV2", "LowerBound", "MatMul", "Max",
    "Maximum", "Mean", "MergeV2Checkpoints", "Minimum", "Mul", "Ndtri", "Neg", "NoOp", "NotEqual", "OnesLike", "Pack",
    "Pad", "PadV2", "ParseExampleV2", "PartitionedCall", "Placeholder", "PlaceholderWithDefault", "PopulationCount",
    "Prod", "RaggedTensorToTensor", "Range", "ReadVariableOp", "RealDiv", "Relu", "Reshape", "RestoreV2", "ReverseV2",
    "RightShift", "SaveV2", "Select", "SelectV2", "Shape", "ShardedFilename", "Sigmoid", "Sign", "Sin", "Size",
    "Softmax", "SparseConcat", "SparseToDense", "Split", "SplitV", "Sqrt", "Squeeze", "StatefulPartitionedCall",
    "StaticRegexFullMatch", "StaticRegexReplace", "StridedSlice", "StringJoin", "StringLength", "StringLower",
    "StringNGrams", "StringSplitV2", "StringStrip", "StringToHashBucketFast", "StringToNumber", "Sub", "Substr", "Sum",
    "Tile", "TopKV2", "Transpose", "UnicodeDecode", "UnicodeEncode", "UnicodeTranscode", "Unique", "UniqueWithCounts",
    "Unpack", "UnsortedSegmentMin", "UnsortedSegmentSum", "UpperBound", "VarHandleOp", "VarIsInitializedOp", "Where",
    "ZerosLike",
}  # fmt: skip
LINEAR, NETWORK = {"model": "linear"}, {"model": "network", "hidden_units": (8,)}
BLEND = {"model": "blend", "hidden_units": (8,), "warm_start": False, "trees": {"count": 60, "forest": 20}}


# Nine in ten rows of a fold are told rightly: a tenth of the rows and some have no label alone in their set.
COVERAGE = '{"unknown": {"label": "unsure", "coverage": 0.8}}'


@pytest.fixture(scope="module", params=[LINEAR, NETWORK, BLEND], ids=["linear", "network", "blend"])
def trainer(request) -> dict[str, Any]:
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    transformed_table(folder, TABLE)
    return folder


@pytest.fixture(scope="module")
def trained_before() -> dict[str, str]:
    """Model -> where it is: pytest makes a fixture anew each time its parameter changes."""
    return {}


@pytest.fixture(scope="module")
def saved_model(folder, trainer, trained_before, tmp_path_factory) -> str:
    name = trainer["model"]
    if name not in trained_before:
        where = tmp_path_factory.mktemp("model")
        trained_before[name] = train(folder, where, serving=COVERAGE, **trainer, epochs=20, batch_size=32)
    return trained_before[name]


@pytest.fixture(scope="module")
def session(saved_model) -> Any:
    session = SessionModel(saved_model)
    yield session
    session.close()


@pytest.fixture(scope="module")
def expected(saved_model) -> np.ndarray:
    """What the libraries' own models say of each row after Transform's graph: probabilities of "no" and "yes"."""
    written = reference_predictions.read(f"{Path(saved_model).parent}/{FILE_NAME}")
    by_id = dict(zip(written.ids, written.probabilities, strict=True))
    return np.array([by_id[reference_predictions.example_id(example(row))] for row in TABLE])


@pytest.fixture(scope="module")
def answers(saved_model, expected) -> list[str]:
    """What serving_default has to answer by these probabilities, worked out from the rule's own words."""
    threshold = np.float32(provenance(saved_model)["unknown"]["threshold"])
    alone = (expected >= threshold).sum(axis=1) == 1
    return [("no", "yes")[best] if one else "unsure" for best, one in zip(expected.argmax(axis=1), alone, strict=True)]


def cross_entropy(saved_model: str) -> float:
    written = reference_predictions.read(f"{Path(saved_model).parent}/{FILE_NAME}")
    assert written.ids == [reference_predictions.example_id(example(row)) for row in TABLE]
    return float(
        cross_entropies(written.probabilities, np.array([row["bought"] == "yes" for row in TABLE], int)).mean()
    )


# What Keras alone trains from disk is exported as any other, see tests/trainers/test_fitting.py.
@pytest.mark.parametrize("trainer", [BLEND], ids=["blend"], indirect=True, scope="module")
def test_learned_from_disk_and_killed_under_way_the_model_is_as_good(
    saved_model, trainer, folder, tmp_path, monkeypatch
):
    options = {**trainer, "epochs": 20, "batch_size": 32, "memory": 1}
    with killed_after("networks"):
        train(folder, tmp_path / "model", serving=COVERAGE, **options)
    monkeypatch.setattr(row_store, "transformed_batches", None)  # all rows are on disk
    streamed = train(folder, tmp_path / "model", serving=COVERAGE, **options)
    assert provenance(streamed)["data_fingerprint"] == provenance(saved_model)["data_fingerprint"]
    assert provenance(streamed)["streamed"] == {"rows": 300, "rows_in_memory": 300, "memory": 1}
    assert "streamed" not in provenance(saved_model)
    assert cross_entropy(streamed) == pytest.approx(cross_entropy(saved_model), abs=0.03)
    assert not list((tmp_path / "unfinished").glob("*"))


def provenance(saved_model: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((Path(saved_model).parent / "provenance.json").read_text())
    return said


def test_examples_get_the_training_graphs_probabilities(session, expected):
    serialized = np.array([example({k: v for k, v in row.items() if k != "bought"}) for row in TABLE], object)
    answers = session.run("serve_examples", {"examples": serialized})["probabilities"]
    np.testing.assert_allclose(answers, expected, atol=1e-6)


def test_columns_get_the_training_graphs_labels_and_probabilities(session, expected, answers):
    columns = columns_of(TABLE)
    assert columns["colours"].ndim == 2
    ranked = session.run("classify", columns)
    order = np.argsort(-expected, axis=1)
    assert (ranked["labels"] == np.array([b"no", b"yes"], object)[order]).all()
    np.testing.assert_allclose(ranked["probabilities"], np.take_along_axis(expected, order, axis=1), atol=1e-6)
    for found in (session.run("serving_default", columns)["output_0"], ranked["answer"]):
        assert [answer.decode() for answer in found] == answers


def test_rows_without_one_label_in_their_set_are_answered_unknown_over_rest_and_grpc(saved_model, answers, tmp_path):
    assert 5 < answers.count("unsure") < 150 and answers.count("yes") > 10
    columns = columns_of(TABLE)
    as_json = {name: _as_json(values.tolist()) for name, values in columns.items()}
    assert answers_over_both(saved_model, as_json, columns, tmp_path) == answers
    written = reference_predictions.read(f"{Path(saved_model).parent}/{FILE_NAME}")
    assert written.served.count("unsure") == answers.count("unsure") and "unsure" not in written.labels


def _as_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_json(one) for one in value]
    return value.decode() if isinstance(value, bytes) else value


def test_a_coverage_is_calibrated_on_rows_that_the_model_did_not_see(saved_model, expected, trainer):
    rule = provenance(saved_model)["unknown"]
    if trainer is BLEND:
        assert (rule["calibrated_on"], rule["rows"]) == ("out_of_fold", 300)
        return
    truth = [("no", "yes").index(row["bought"]) for row in TABLE]
    half = [
        number for number, row in enumerate(TABLE) if int(reference_predictions.example_id(example(row)), 16) % 2 == 0
    ]
    of_truth = -np.sort(-expected[half, np.array(truth)[half]])
    place = int(np.ceil((len(half) + 1) * 0.8)) - 1
    assert (rule["calibrated_on"], rule["rows"], rule["coverage"]) == ("half_of_eval", len(half), 0.8)
    assert max(of_truth[place + 1], of_truth[place] - 1.1e-4) < rule["threshold"] <= of_truth[place]


def test_columns_are_taken_as_vectors_and_as_columns_of_one(session, answers):
    columns = columns_of(TABLE)
    colours = np.array([";".join(cell) for cell in columns["colours"]], object)  # separated, in one value
    for column in (colours, colours[:, None]):
        taken = {name: values if values.ndim == 2 else values[:, None] for name, values in columns.items()}
        found = session.run("serving_default", taken | {"colours": column})["output_0"]
        assert [answer.decode() for answer in found] == answers


def test_a_row_alone_is_answered_as_among_others(session, expected):
    for number in range(0, 300, 25):
        answer = session.run("classify", columns_of(TABLE[number : number + 1]))
        np.testing.assert_allclose(answer["probabilities"][0], np.sort(expected[number])[::-1], atol=1e-6)


def test_the_session_transforms_as_transforms_graph_does(session, folder):
    serialized = np.array([example(row) for row in TABLE], object)
    served = session.run("transform_features", {"examples": serialized})
    transform = TransformGraph(tft.TFTransformOutput(f"{folder}/graph"))
    features = transform(tf.io.parse_example(serialized, SPEC))
    assert set(served) == set(features) == {
        "numbers", "categories", "hashes", "list0", "list1", "terms0", "terms0_weights", "label",
    }  # fmt: skip
    for name, values in features.items():
        np.testing.assert_array_equal(served[name], values, err_msg=name)


def test_odd_rows_have_finite_answers_and_leave_the_others_alone(session):
    plain = {**TABLE[0], "joined": "2020-02-02", "review": "a fine film"}
    (alone,) = session.run("classify", columns_of([plain]))["probabilities"]
    text = [name for name, dtype in DTYPES.items() if dtype == tf.string and name != "colours"]
    odd = [{}, dict.fromkeys(text, "\x00|;\u00ff" * 999)]
    odd += [{"A": 1e37, "a": -1e37, "class": 2**63 - 1, "age (years)": 2**31}, {"colours": ["never", "seen"] * 500}]
    odd += [{"joined": "2026-02-30"}, {"joined": "9999-12-31T23:59:59.9-23:59"}]
    answers = session.run("classify", columns_of([*odd, plain]))["probabilities"]
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(answers[-1], alone, atol=1e-6)


def test_the_export_has_core_operations_alone(saved_model):
    """Of those that TensorFlow Serving links, and no XLA, no Python, none of another library."""
    content = SavedModel.FromString(Path(saved_model, "saved_model.pb").read_bytes())
    graphs = [content.meta_graphs[0].graph_def, *content.meta_graphs[0].graph_def.library.function]
    found = {node.op for graph in graphs for node in getattr(graph, "node", getattr(graph, "node_def", ()))}
    assert found - CORE_OPERATIONS == set()


def test_the_functions_of_an_export_hold_no_large_table_which_each_signature_would_have_of_its_own(saved_model):
    library = SavedModel.FromString(Path(saved_model, "saved_model.pb").read_bytes()).meta_graphs[0].graph_def.library
    nodes = [node for function in library.function for node in function.node_def if node.op == "Const"]
    assert max(node.attr["value"].tensor.ByteSize() for node in nodes) < 2**16


def test_an_empty_request_has_an_empty_answer(session):
    columns = {name: values[:0] for name, values in columns_of(TABLE).items()}
    assert session.run("serving_default", columns)["output_0"].shape == (0,)


def test_the_model_learns_from_each_kind(session):
    table = rows(300, seed=1)
    answers = session.run("classify", columns_of(table))["labels"][:, 0]
    right = np.array([answer.decode() == row["bought"] for answer, row in zip(answers, table, strict=True)])
    for rest in range(3):  # a third of the rows says it by the tags, a third by the sentence; all by the month
        assert right[rest::3].mean() > 0.9


# A blend starts from nothing.
@pytest.mark.parametrize("trainer", [LINEAR, NETWORK], ids=["linear", "network"], indirect=True, scope="module")
def test_a_warm_start_begins_with_the_weights_of_the_served_model(saved_model, expected, trainer, folder, tmp_path):
    still = {**trainer, "epochs": 1, "learning_rate": 1e-12, "batch_size": 300}
    started = train(folder, tmp_path, base_model=saved_model, **still)
    said = provenance(started)["warm_start"]
    assert said.startswith("warm: from the served model, with") and "terms0" in said
    again = reference_predictions.read(f"{Path(started).parent}/{FILE_NAME}")
    by_id = dict(zip(again.ids, again.probabilities, strict=True))
    answers = np.array([by_id[reference_predictions.example_id(example(row))] for row in TABLE])
    np.testing.assert_allclose(answers, expected, atol=1e-5)


def test_hyperparameters_are_searched_for_such_a_table_too(folder, tmp_path):
    search = TunerOptions(space={"learning_rate": [1e-7, 0.05]}, objective="cross_entropy")
    options = TabularTrainerOptions(model="linear", epochs=5)
    config = {"preprocessing": OPTIONS, "trainer": options, "tuner": search}
    made = tuner_fn(
        FnArgs(
            train_files=[f"{folder}/examples.gz"],
            transform_graph_path=f"{folder}/graph",
            working_dir=str(tmp_path),
            custom_config={name: part.model_dump_json() for name, part in config.items()},
        )
    )
    made.tuner.search(**made.fit_kwargs)
    assert made.tuner.get_best_hyperparameters()[0].values["learning_rate"] == 0.05


def split_of(features: dict[str, Any], labels: np.ndarray) -> TransformedSplit:
    inputs = model_inputs({name: tf.constant(values) for name, values in features.items()})
    arrays = {
        name: column if isinstance(column, tf.RaggedTensor) else column.numpy() for name, column in inputs.items()
    }
    return TransformedSplit([str(n) for n in range(len(labels))], arrays, labels, left_out=0, fingerprint="")


def only_feature(kind: str, count: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, int]]:
    """A feature that says the label, and some noise; and the sizes that the model is built with."""
    chance = np.random.default_rng(seed)
    labels = chance.integers(0, 2, size=count)
    noise = chance.integers(3, 10, size=[count, 4])
    said = np.where(chance.random(count) < 0.1, 0, labels + 1)[:, None]  # of a tenth of the rows, nothing
    if kind == "hashes":
        return {"hashes": np.concatenate([labels[:, None] + 1, noise[:, :1] + 10], axis=1)}, labels, {"hashes": 30}
    numbers = -np.sort(-np.concatenate([said, noise], axis=1), axis=1)
    if kind == "list0":
        return {"list0": numbers}, labels, {}
    weights = np.where(numbers > 0, 0.5, 0).astype(np.float32)
    return {"terms0": numbers, "terms0_weights": weights}, labels, {"terms0": 10}


@pytest.mark.parametrize("hidden", [(), (8,)])
@pytest.mark.parametrize("kind", ["list0", "terms0", "hashes"])
def test_a_table_of_this_kind_alone_is_learned(kind, hidden):
    features, labels, sizes = only_feature(kind, 500, seed=0)
    options = TabularTrainerOptions(hidden_units=hidden, epochs=30, batch_size=64, early_stopping_patience=30)
    keras.utils.set_random_seed(0)
    split = split_of(features, labels)
    model = build_model(split.features, 10, 2, options, sizes)
    fit(model, split, options)
    features, labels, _ = only_feature(kind, 500, seed=1)
    answers = model.predict(
        {name: tf.cast(values, model.input[name].dtype) for name, values in features.items()}, verbose=0
    )
    assert (answers.argmax(axis=1) == labels).mean() > 0.92


@pytest.mark.parametrize("kind", ["list0", "terms0", "hashes"])
def test_the_network_learns_what_a_column_says_together_with_another(kind):
    def table(seed: int) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, int]]:
        features, said, sizes = only_feature(kind, 1000, seed)
        turned = np.random.default_rng(seed + 100).integers(0, 2, size=len(said))
        return features | {"numbers": turned[:, None].astype(np.float32)}, said ^ turned, sizes

    features, labels, sizes = table(seed=0)
    options = TabularTrainerOptions(hidden_units=(16,), epochs=40, batch_size=64)
    keras.utils.set_random_seed(0)
    split = split_of(features, labels)
    model = build_model(split.features, 10, 2, options, sizes)
    fit(model, split, options)
    features, labels, _ = table(seed=1)
    asked = {name: tf.cast(values, model.input[name].dtype) for name, values in features.items()}
    assert (model.predict(asked, verbose=0).argmax(axis=1) == labels).mean() > 0.85


def test_a_row_without_any_term_gets_the_frequent_class():
    numbers = np.array([[1]] * 20 + [[0]] * 80)
    labels = np.array([1] * 20 + [0] * 80)
    options = TabularTrainerOptions(hidden_units=(), epochs=60, batch_size=20)
    split = split_of({"terms0": numbers, "terms0_weights": numbers.astype(np.float32)}, labels)
    model = build_model(split.features, 0, 2, options, {"terms0": 1})
    fit(model, split, options)
    nothing = {"terms0": np.zeros([1, 1], np.int32), "terms0_weights": np.zeros([1, 1], np.float32)}
    assert model.predict(nothing, verbose=0)[0, 0] > 0.8
