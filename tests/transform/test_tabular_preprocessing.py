"""The preprocessing of tables, by its values: eagerly, in Transform's graph, and in the graph reloaded from disk."""

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tfx_bsl.public import tfxio

from pipeline.runners.local import BEAM_PIPELINE_ARGS
from serving.signatures.common import is_missing
from transform.errors import PreprocessingError
from transform.labels import dense_column, label_text
from transform.options import Column, LabelOptions, TabularOptions
from transform.tabular import category_text, category_tokens, column_plan, preprocessing_fn

OPTIONS = TabularOptions(
    label=LabelOptions(column="target", names={"0": "healthy", "1": "disease"}),
    columns={"sex": "categorical", "chol": {"kind": "quantiles", "buckets": 2}, "secret": "ignored"},
    crosses=(("sex", "thal"),),
)
RAW_FEATURES = {
    "age": tf.io.VarLenFeature(tf.int64),
    "oldpeak": tf.io.VarLenFeature(tf.float32),
    "sex": tf.io.VarLenFeature(tf.int64),
    "thal": tf.io.VarLenFeature(tf.string),
    "chol": tf.io.VarLenFeature(tf.float32),
    "secret": tf.io.VarLenFeature(tf.int64),
    "target": tf.io.VarLenFeature(tf.int64),
}
ROWS = [
    {"age": 40, "oldpeak": 1.0, "sex": 1, "thal": "normal", "chol": 10.0, "secret": 1, "target": 0},
    {"age": 50, "oldpeak": 2.0, "sex": 1, "thal": "normal", "chol": 20.0, "secret": 2, "target": 1},
    {"age": 60, "oldpeak": 3.0, "sex": 0, "thal": "fixed", "chol": 30.0, "secret": 3, "target": 1},
    {"oldpeak": 2.0, "sex": 0, "thal": "fixed", "chol": 40.0, "secret": 4, "target": 0},
    {"age": 50, "sex": 1, "thal": "1", "chol": 50.0, "secret": 5},
    {"age": 50, "oldpeak": 2.0, "sex": 1, "chol": 60.0, "secret": 6, "target": 7},
]


def example(row: dict) -> bytes:
    result = tf.train.Example()
    for name, value in row.items():
        feature = result.features.feature[name]
        if isinstance(value, str):
            feature.bytes_list.value.append(value.encode())
        elif isinstance(value, float):
            feature.float_list.value.append(value)
        else:
            feature.int64_list.value.append(value)
    return result.SerializeToString()


@pytest.fixture(scope="module")
def transform_graph(tmp_path_factory) -> str:
    """The directory of Transform's graph, made of ROWS."""
    metadata = tft.DatasetMetadata.from_feature_spec(RAW_FEATURES)
    source = tfxio.TFExampleBeamRecord(physical_format="inmem", telemetry_descriptors=["test"], schema=metadata.schema)
    path = str(tmp_path_factory.mktemp("transform") / "graph")
    with (
        beam.Pipeline(argv=BEAM_PIPELINE_ARGS) as pipeline,
        tft_beam.Context(temp_dir=str(tmp_path_factory.mktemp("temporary"))),
    ):
        data = pipeline | beam.Create([example(row) for row in ROWS]) | source.BeamSource()
        function = (data, source.TensorAdapterConfig()) | tft_beam.AnalyzeDataset(
            lambda inputs: preprocessing_fn(inputs, {"preprocessing": OPTIONS.model_dump_json()})
        )
        _ = function | tft_beam.WriteTransformFn(path)
    return path


def transformed(path: str, rows: list[dict], without: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    layer = tft.TFTransformOutput(path).transform_features_layer()
    features = tf.io.parse_example(
        [example(row) for row in rows], {name: spec for name, spec in RAW_FEATURES.items() if name not in without}
    )
    return {name: values.numpy() for name, values in layer(features).items()}


def vocabulary(path: str, name: str) -> list[str]:
    return [token.decode() for token in tft.TFTransformOutput(path).vocabulary_by_name(name)]


def test_numbers_are_z_scores_over_the_values_that_are_there(transform_graph):
    # age: 40, 50, 60, 50, 50 has mean 50 and variance 40; oldpeak: 1, 2, 3, 2, 2 has mean 2 and variance 0.4.
    numbers = transformed(transform_graph, ROWS)["numbers"]
    age = np.array([-10, 0, 10, 0, 0, 0]) / np.sqrt(40)
    oldpeak = np.array([-1, 0, 1, 0, 0, 0]) / np.sqrt(0.4)
    np.testing.assert_allclose(numbers[:, 0], age, atol=1e-6)
    np.testing.assert_allclose(numbers[:, 1], oldpeak, atol=1e-6)


def test_a_missing_number_is_zero_and_flagged(transform_graph):
    numbers = transformed(transform_graph, ROWS)["numbers"]
    np.testing.assert_array_equal(numbers[:, 2], [0, 0, 0, 1, 0, 0])
    np.testing.assert_array_equal(numbers[:, 3], [0, 0, 0, 0, 1, 0])


def test_the_vocabulary_holds_what_occurs_twice_and_not_the_ignored_column(transform_graph):
    assert set(vocabulary(transform_graph, "categories")) == {
        "sex=1", "sex=0", "thal=normal", "thal=fixed", "chol=0", "chol=1", "sex=1&thal=normal", "sex=0&thal=fixed",
    }  # fmt: skip


def test_categories_are_places_in_the_vocabulary_and_unseen_ones_minus_one(transform_graph):
    known = vocabulary(transform_graph, "categories")
    ids = transformed(transform_graph, ROWS)["categories"]
    assert ids[0].tolist() == [known.index(token) for token in ("chol=0", "sex=1", "thal=normal", "sex=1&thal=normal")]
    assert ids[3].tolist() == [known.index(token) for token in ("chol=1", "sex=0", "thal=fixed", "sex=0&thal=fixed")]
    assert ids[4].tolist() == [known.index("chol=1"), known.index("sex=1"), -1, -1]
    assert ids[5].tolist() == [known.index("chol=1"), known.index("sex=1"), -1, -1]


def test_labels_are_numbered_in_lexicographic_order_of_their_names(transform_graph):
    assert vocabulary(transform_graph, "labels") == ["7", "disease", "healthy"]
    assert transformed(transform_graph, ROWS)["label"].tolist() == [2, 1, 1, 2, -1, 0]


def test_the_reloaded_graph_needs_no_label(transform_graph):
    with_label = transformed(transform_graph, ROWS)
    without = transformed(transform_graph, ROWS, without=("target",))
    assert set(without) == {"numbers", "categories"}
    np.testing.assert_array_equal(without["numbers"], with_label["numbers"])
    np.testing.assert_array_equal(without["categories"], with_label["categories"])


def test_a_column_missing_from_the_whole_batch_is_missing_in_each_row(transform_graph):
    numbers = transformed(transform_graph, [{"age": 40}, {"age": 60}])["numbers"]
    np.testing.assert_allclose(numbers, [[-10 / np.sqrt(40), 0, 0, 1], [10 / np.sqrt(40), 0, 0, 1]], atol=1e-6)


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        (tf.constant(["a", "", "  ", "0"]), [False, True, True, False]),
        (tf.constant([1, -(2**31), 0], tf.int64), [False, True, False]),
        (tf.constant([1.0, -1e38, float("nan"), float("inf"), -float("inf")]), [False, True, True, True, True]),
    ],
)
def test_each_dtype_has_its_missing_values(values, missing):
    assert is_missing(values).numpy().tolist() == missing
    assert tf.function(is_missing)(values).numpy().tolist() == missing


def test_a_number_that_is_not_one_is_missing(transform_graph):
    numbers = transformed(transform_graph, [{"age": 50, "oldpeak": float("nan")}])["numbers"]
    assert numbers.tolist() == [[0, 0, 0, 1]]


def test_a_sparse_column_becomes_a_vector_with_the_missing_value():
    column = tf.SparseTensor([[0, 0], [2, 0], [2, 1]], tf.constant([5, 6, 7], tf.int64), [4, 2])
    assert dense_column(column).numpy().tolist() == [5, -(2**31), 6, -(2**31)]


def test_a_sparse_column_without_any_value_is_missing_in_each_row():
    column = tf.SparseTensor(tf.zeros([0, 2], tf.int64), tf.constant([], tf.string), [3, 0])
    assert dense_column(column).numpy().tolist() == [b"", b"", b""]


def test_a_value_on_a_boundary_belongs_to_the_bucket_above():
    column = Column(kind="boundaries", boundaries=(10, 20))
    values = tf.constant([9.9, 10, 19, 20, 1e9, -1e38], tf.float32)
    assert category_text(values, column).numpy().tolist() == [b"0", b"1", b"1", b"2", b"2", b""]


def test_whole_numbers_and_floats_make_the_category_that_a_person_would_write():
    categorical = Column(kind="categorical")
    assert category_text(tf.constant([3, -1], tf.int64), categorical).numpy().tolist() == [b"3", b"-1"]
    assert category_text(tf.constant([3.0, 0.5]), categorical).numpy().tolist() == [b"3", b"0.5"]


def test_a_cross_joins_the_tokens_of_its_columns():
    texts = {"a": tf.constant(["1", ""]), "b": tf.constant(["x", "y"])}
    assert [token.numpy().tolist() for token in category_tokens(texts, [("a", "b")])] == [
        [b"a=1", b"a="],
        [b"b=x", b"b=y"],
        [b"a=1&b=x", b"a=&b=y"],
    ]


def test_a_cross_of_a_plain_number_is_refused_by_name():
    with pytest.raises(PreprocessingError, match="'age', which is no category"):
        category_tokens({"sex": tf.constant(["1"])}, [("sex", "age")])


def test_columns_that_the_config_does_not_mention_follow_their_type():
    assert column_plan("x", tf.string, OPTIONS).kind == "categorical"
    assert column_plan("x", tf.int64, OPTIONS).kind == "z_score"
    assert column_plan("x", tf.float32, OPTIONS).kind == "z_score"


def test_text_in_a_column_of_numbers_is_refused_by_name():
    with pytest.raises(PreprocessingError, match="'chol' holds text, expected numbers"):
        column_plan("chol", tf.string, OPTIONS)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (tf.constant([0, 1, 2, -(2**31)], tf.int64), [b"healthy", b"disease", b"2", b""]),
        (tf.constant([0.0, 1.0, 2.5, float("nan")]), [b"healthy", b"disease", b"2.5", b""]),
        (tf.constant(["0", "1", "two", ""]), [b"healthy", b"disease", b"two", b""]),
    ],
)
def test_labels_are_called_by_their_names_whatever_their_dtype(values, texts):
    assert label_text(values, OPTIONS.label).numpy().tolist() == texts
