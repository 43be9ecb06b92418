"""The preprocessing of tables, by its values: eagerly, in Transform's graph, and in the graph reloaded from disk."""

from datetime import UTC, date, datetime, timedelta, timezone

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tfx_bsl.public import tfxio

from pipeline.runners.local import BEAM_PIPELINE_ARGS
from serving.signatures.common import is_missing
from transform.columns import Column
from transform.datetimes import (
    FIRST_SECOND,
    LAST_SECOND,
    calendar_fields,
    datetime_numbers,
    read_datetimes,
    seconds_of_texts,
)
from transform.errors import PreprocessingError
from transform.labels import dense_column, dense_columns, label_text
from transform.numbers import together
from transform.options import LabelOptions, TabularOptions
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
    columns = {"a": tf.constant(["1", ""]), "b": tf.constant(["x", "y"])}
    plan = dict.fromkeys(columns, Column(kind="categorical"))
    tokens = category_tokens(columns, plan, [("a", "b")])
    assert tokens.numpy().tolist() == [[b"a=1", b"b=x", b"a=1&b=x"], [b"a=", b"b=y", b"a=&b=y"]]


def test_a_cross_of_a_plain_number_is_refused_by_name():
    plan = {"sex": Column(kind="categorical"), "age": Column(kind="z_score")}
    columns = {"sex": tf.constant(["1"]), "age": tf.constant([1.0])}
    with pytest.raises(PreprocessingError, match="'age', which is no category"):
        category_tokens(columns, plan, [("sex", "age")])


def test_sparse_and_dense_columns_of_all_dtypes_become_dense_in_their_order():
    columns = {
        "b": tf.SparseTensor([[0, 0], [0, 1], [2, 0]], [5, 9, 6], [3, 2]),
        "text": tf.SparseTensor(tf.zeros([0, 2], tf.int64), tf.constant([], tf.string), [3, 0]),
        "dense": tf.constant([[1.0], [2.0], [3.0]]),
        "a": tf.SparseTensor([[1, 0]], [7], [3, 1]),
    }
    missing = -(2**31)
    assert {name: column.numpy().tolist() for name, column in dense_columns(columns).items()} == {
        "b": [5, missing, 6],
        "text": [b"", b"", b""],
        "dense": [1.0, 2.0, 3.0],
        "a": [missing, 7, missing],
    }


def test_columns_that_are_computed_together_keep_their_order():
    columns = {
        "a": tf.constant([1, 2]),
        "b": tf.constant([0.5, 1.5]),
        "c": tf.constant([3, 4]),
        "d": tf.constant([5, 6]),
    }
    factors = {"a": 10, "b": 10, "c": 100, "d": 10}

    def multiplied(values, factor):
        return tf.cast(values, tf.float32) * factor

    found = together([(columns[name], factors[name]) for name in columns], multiplied)
    assert found.numpy().tolist() == [[10, 5, 300, 50], [20, 15, 400, 60]]


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


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = st.builds(
    lambda minutes: timezone(timedelta(minutes=minutes)), st.integers(-23 * 60 - 59, 23 * 60 + 59)
) | st.just(UTC)
MOMENTS = st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29), timezones=ZONES)
MANY = settings(max_examples=60, deadline=None)


def seconds(moment: datetime) -> int:
    """Whole seconds since 1970; without an offset, in UTC."""
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - EPOCH) // timedelta(seconds=1)


def read(texts: list[str], *formats: str) -> list[int | None]:
    """Seconds since 1970, None for what cannot be read."""
    found, readable = seconds_of_texts(tf.constant(texts), formats)
    return [int(second) if fine else None for second, fine in zip(found.numpy(), readable.numpy(), strict=True)]


@MANY
@given(st.lists(MOMENTS, min_size=1, max_size=50))
def test_iso_8601_is_read_as_python_reads_it(moments):
    texts = []
    for number, moment in enumerate(moments):
        precision = ("minutes", "seconds", "milliseconds", "microseconds")[number % 4]
        before, after = " " * (number % 2), " " * (number % 3)
        written = moment.isoformat(sep="T "[number % 2], timespec=precision)
        texts.append(before + written + after)
        texts.append(moment.date().isoformat())
    assert read(texts) == [seconds(datetime.fromisoformat(text.strip())) for text in texts]


@MANY
@given(st.lists(st.text(alphabet="0129-+:T .,Z/", max_size=26), min_size=1, max_size=50))
def test_what_is_read_is_what_python_reads(texts):
    for text, found in zip(texts, read(texts), strict=True):
        if found is not None:
            assert found == seconds(datetime.fromisoformat(text.strip()))


FORMATS = [
    "%d.%m.%Y",
    "%m/%d/%Y %H:%M",
    "%Y%m%d",
    "%Y%m%d%H%M%S",
    "%d %b %Y",
    "%B %d, %Y",
    "%m/%d/%y",
    "%d-%m-%Y %I:%M %p",
    "%Y/%m/%d %H:%M:%S.%f",
    "%d/%b/%Y:%H:%M:%S %z",
    "%m %Y",
    "100%% on %d.%m.%Y (UTC)",
]


@pytest.mark.parametrize("format_", FORMATS)
def test_formats_are_read_as_strptime_reads_them(format_):
    chance = np.random.default_rng(0)
    moments = [datetime(1000, 1, 1, tzinfo=UTC) + timedelta(seconds=int(s)) for s in chance.integers(0, 2.8e11, 300)]
    texts = [moment.strftime(format_) for moment in moments]
    texts += (
        [text.upper() for text in texts[:20]] + [text.replace("0", "") for text in texts] + [*map(scrambled, texts)]
    )
    expected = [strptime(text, format_) for text in texts]
    assert sum(found is not None for found in expected) > 300
    assert read(texts, format_) == expected


def scrambled(text: str) -> str:
    """With two of its characters swapped: many such dates do not exist."""
    middle = len(text) // 3
    return text[:middle] + text[middle + 1 : middle + 2] + text[middle : middle + 1] + text[middle + 2 :]


def strptime(text: str, format_: str) -> int | None:
    try:
        return seconds(datetime.strptime(text.strip(), format_))
    except ValueError:
        return None


def test_the_first_format_that_fits_counts():
    texts = ["03/04/2026", "31/12/2026", "12/31/2026", "13/13/2026", "2026-04-03"]
    days = [(2026, 4, 3), (2026, 12, 31), (2026, 12, 31), None, None]
    expected = [seconds(datetime(*day)) if day else None for day in days]
    assert read(texts, "%d/%m/%Y", "%m/%d/%Y") == expected


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-30", "2025-02-29", "1900-02-29", "2026-04-31", "2026-13-01", "2026-00-10", "2026-01-00", "0000-01-01",
        "2026-01-31T24:00", "2026-01-31T10:60", "2026-01-31 10:00:60", "2026-01-31T10", "2026-01-31T10:00+24:00",
        "2026-01-31T10:00+02:60", "2026-1-31", "26-01-31", "20260131", "31.01.2026", "today", "|||", "2026-01-31x",
        "x2026-01-31", "2026-01-31\n2026-01-31", "2026-01-31+02:00", "12026-01-31", "\u0662\u0660\u0662\u0666-01-31",
        "0001-01-01T00:00+00:01", "9999-12-31T23:59-00:01", "-2026-01-31", "1e5", "NaN",
    ],
)  # fmt: skip
def test_what_is_no_date_is_unreadable_and_its_neighbours_are_not(text):
    found = read_datetimes(tf.constant(["2024-02-29", text, "2000-02-29"]), Column(kind="datetime"))
    assert found.unreadable.numpy().tolist() == [False, True, False]
    assert found.missing.numpy().tolist() == [False] * 3
    expected = [seconds(datetime(2024, 2, 29)), 0, seconds(datetime(2000, 2, 29))]
    assert found.seconds.numpy().tolist() == expected


@pytest.mark.parametrize("bad", [b"\xff\xfe", b"2026-01-31\xff", b"\x00", b"2026-01-31\x00", b"9" * 100_000])
def test_any_bytes_are_unreadable_at_most(bad):
    found = read_datetimes(tf.constant([bad, b"1970-01-02", b"", b"  "]), Column(kind="datetime"))
    assert found.unreadable.numpy().tolist() == [True, False, False, False]
    assert found.missing.numpy().tolist() == [False, False, True, True]
    assert found.seconds.numpy().tolist() == [0, 86_400, 0, 0]


@pytest.mark.parametrize(("unit", "per_second"), [("s", 1), ("ms", 1000), ("us", 1_000_000)])
def test_numbers_are_units_since_1970(unit, per_second):
    moments = [-1, 0, 1, FIRST_SECOND, LAST_SECOND, 1_700_000_000]
    values = [second * per_second for second in moments]
    values += [(FIRST_SECOND - 1) * per_second, (LAST_SECOND + 1) * per_second, -(2**63), 2**63 - 1, -(2**31)]
    found = read_datetimes(tf.constant(values, tf.int64), Column(kind="datetime", unit=unit))
    assert found.seconds.numpy().tolist() == [*moments, 0, 0, 0, 0, 0]
    assert found.unreadable.numpy().tolist() == [False] * 6 + [True] * 4 + [False]
    assert found.missing.numpy().tolist() == [False] * 10 + [True]


def test_parts_of_a_unit_do_not_count_and_floats_may_be_missing():
    values = tf.constant([1.5, -1.5, 1e30, -1e30, float("nan"), float("inf"), -1e38], tf.float32)
    found = read_datetimes(values, Column(kind="datetime", unit="s"))
    assert found.seconds.numpy().tolist() == [1, -2, 0, 0, 0, 0, 0]
    assert found.unreadable.numpy().tolist() == [False, False, True, True, False, False, False]
    assert found.missing.numpy().tolist() == [False] * 4 + [True] * 3


def test_whole_numbers_are_read_by_their_digits_where_formats_say_so():
    values = tf.constant([20260131, 20260230, -(2**31)], tf.int64)
    found = read_datetimes(values, Column(kind="datetime", formats=["%Y%m%d"]))
    assert found.seconds.numpy().tolist() == [seconds(datetime(2026, 1, 31)), 0, 0]
    assert found.unreadable.numpy().tolist() == [False, True, False]


def test_every_day_of_the_calendar_has_pythons_fields():
    first, last = date.min.toordinal(), date.max.toordinal()
    ordinals = [*range(first, last, 97), *range(first, first + 800), *range(last - 800, last + 1)]
    # Around each end of February, of all kinds of years.
    ordinals += [date(year, 3, 1).toordinal() + near for year in range(1, 10_000, 100) for near in (-2, -1, 0)]
    ordinals += [date(year, 3, 1).toordinal() + near for year in range(1896, 2110) for near in (-2, -1, 0)]
    days = [date.fromordinal(ordinal) for ordinal in ordinals]
    fields = calendar_fields((tf.constant(ordinals, tf.int64) - EPOCH.date().toordinal()) * 86_400 + 86_399)
    assert fields.year.numpy().tolist() == [day.year for day in days]
    assert fields.month.numpy().tolist() == [day.month for day in days]
    assert fields.day.numpy().tolist() == [day.day for day in days]
    assert fields.weekday.numpy().tolist() == [day.weekday() for day in days]
    assert fields.days.numpy().tolist() == [(day - EPOCH.date()).days for day in days]
    assert set(fields.second.numpy()) == {86_399}


def test_a_point_in_time_becomes_a_year_days_and_four_cycles():
    moments = [datetime(2026, 1, 31, 18, 0), datetime(1969, 12, 31, 6, 30), datetime(2024, 7, 1)]
    linear, cyclic = datetime_numbers(tf.constant([[seconds(moment)] for moment in moments], tf.int64))
    days = [seconds(moment) / 86_400 for moment in moments]
    np.testing.assert_allclose(linear, np.transpose([[2026, 1969, 2024], days]), rtol=1e-12)
    turns = np.array([[0, 30 / 31, 5 / 7, 0.75], [11 / 12, 30 / 31, 2 / 7, 6.5 / 24], [6 / 12, 0, 0, 0]]) * 2 * np.pi
    expected = np.stack([np.sin(turns), np.cos(turns)], axis=2).reshape(3, 8)
    np.testing.assert_allclose(cyclic, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"formats": ["%d.%m.%Q"]}, "'%d.%m.%Q' has the directive '%Q', which is none of %Y, %y, %m"),
        ({"formats": ["%d.%m.%Y %"]}, "has the directive '%', which is none of"),
        ({"formats": ["%d.%m"]}, "'%d.%m' says no year"),
        ({"formats": ["%d.%m.%y %Y"]}, "says the year twice"),
        ({"formats": ["%d.%d.%Y"]}, "says the day twice"),
        ({"formats": ["%Y %I:%M"]}, "one of %I and %p"),
        ({"formats": ["%Y"], "unit": "s"}, "formats is for dates that are written, unit for numbers"),
        ({"unit": "days"}, "Input should be 's', 'ms' or 'us'"),
        ({"buckets": 3}, "buckets goes with kind: quantiles or hash, not with datetime"),
    ],
)
def test_options_that_cannot_be_used_are_named(options, sentence):
    with pytest.raises(ValidationError) as refused:
        Column(kind="datetime", **options)
    assert sentence in str(refused.value)
