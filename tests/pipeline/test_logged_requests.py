"""What is read out of request logs: records, columns of raw inputs, and examples without what is missing."""

from __future__ import annotations

import io
from base64 import urlsafe_b64encode
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_metadata.proto.v0 import statistics_pb2
from tensorflow_serving.apis import prediction_log_pb2

from pipeline.config import load_config
from pipeline.skew.compare import Comparison, comparison, write_examples
from pipeline.skew.requests import Damage, LoggedRequests, read_records, request_columns
from serving.missing_values import MISSING_FLOAT, MISSING_INTEGER
from tests.pipeline.conftest import PROJECT
from tests.serving.colour_photos import photo

TABLE = Comparison({"age": "age", "thal": "thal"}, ["age", "thal"], frozenset({"thal"}))


NO_STATISTICS = statistics_pb2.DatasetFeatureStatistics()
TEXTS = comparison(load_config(str(PROJECT / "configs/reviews.yaml"), ["preprocessing.column=review"]), NO_STATISTICS)
PHOTOS = comparison(load_config(str(PROJECT / "configs/digits.yaml")), NO_STATISTICS)


# Records.


@pytest.fixture
def log(tmp_path) -> bytes:
    """Three records of 5, 300 and 7 bytes; a record has 16 bytes besides."""
    with tf.io.TFRecordWriter(str(tmp_path / "log")) as writer:
        for record in (b"first", b"s" * 300, b"the end"):
            writer.write(record)
    return (tmp_path / "log").read_bytes()


def read(content: bytes) -> list[bytes | Damage]:
    return list(read_records(io.BytesIO(content)))


FIRST, SECOND, THIRD = b"first", b"s" * 300, b"the end"


def changed(content: bytes, offset: int) -> bytes:
    return content[:offset] + bytes([content[offset] ^ 1]) + content[offset + 1 :]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda log: log, [FIRST, SECOND, THIRD]),
        (lambda log: b"", []),
        (lambda log: changed(log, 21 + 12 + 5), [FIRST, Damage(21, False), THIRD]),  # content
        (lambda log: changed(log, 21 + 2), [FIRST, Damage(21, False), THIRD]),  # length
        (lambda log: changed(log, 21 + 9), [FIRST, Damage(21, False), THIRD]),  # checksum of the length
        (lambda log: log[:21] + b"garbage" * 9 + log[21:], [FIRST, Damage(21, False), SECOND, THIRD]),
        (lambda log: log[:21] + bytes(range(1, 256)) * 9000 + log[21:], [FIRST, Damage(21, False), SECOND, THIRD]),
        (lambda log: log[:21] + bytes(3_000_001) + log[21:], [FIRST, Damage(21, False), SECOND, THIRD]),
        (lambda log: log[7:], [Damage(0, False), SECOND, THIRD]),
        (lambda log: log[:-1], [FIRST, SECOND, Damage(337, True)]),
        (lambda log: log[:340], [FIRST, SECOND, Damage(337, True)]),
        (lambda log: log + bytes(50), [FIRST, SECOND, THIRD, Damage(360, False)]),
        (lambda log: log[:100] + log, [FIRST, Damage(21, False), FIRST, SECOND, THIRD]),
    ],
)
def test_whole_records_are_read_around_what_is_damaged(log, damage, expected):
    assert read(damage(log)) == expected


# Columns.


def predict_log(**inputs: np.ndarray | list) -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    log.log_metadata.model_spec.name = "m"
    for name, values in inputs.items():
        log.predict_log.request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    return log


def example(**features: int | float | bytes) -> tf.train.Example:
    made = tf.train.Example()
    for name, value in features.items():
        kind = {int: "int64_list", float: "float_list", bytes: "bytes_list"}[type(value)]
        getattr(made.features.feature[name], kind).value.append(value)
    return made


def test_tensors_are_columns_whatever_their_shape():
    log = predict_log(age=np.array([[63], [41]]), oldpeak=np.array([2.5, 0.5], np.float32), thal=["fixed", ""])
    assert request_columns(log) == {"age": [63, 41], "oldpeak": [2.5, 0.5], "thal": [b"fixed", b""]}
    assert request_columns(predict_log(age=63)) == {"age": [63]}


def test_serialized_examples_are_rows():
    records = [example(age=63, thal=b"fixed"), example(age=41)]
    log = predict_log(examples=[record.SerializeToString() for record in records])
    assert request_columns(log) == {"age": [63, 41], "thal": [b"fixed", None]}


@pytest.mark.parametrize("kind", ["classify_log", "regress_log", "multi_inference_log"])
def test_the_examples_of_a_classification_or_regression_are_rows_with_their_context(kind):
    log = prediction_log_pb2.PredictionLog()
    input_ = getattr(log, kind).request.input
    input_.example_list_with_context.context.CopyFrom(example(age=63, thal=b"fixed"))
    input_.example_list_with_context.examples.extend([example(thal=b"normal"), example(oldpeak=0.5)])
    assert request_columns(log) == {"age": [63, 63], "thal": [b"normal", b"fixed"], "oldpeak": [None, 0.5]}


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (prediction_log_pb2.PredictionLog(), "a record without a request holds no inputs"),
        (
            prediction_log_pb2.PredictionLog(session_run_log=prediction_log_pb2.SessionRunLog()),
            "a session_run_log holds no inputs",
        ),
        (predict_log(age=[1, 2], thal=["a"]), "one value for each row"),
        (predict_log(examples=["no example"]), "holds no serialized tf.Example"),
    ],
)
def test_what_holds_no_rows_is_refused(log, message):
    with pytest.raises(ValueError, match=message):
        request_columns(log)


def test_a_log_without_metadata_is_of_the_model_that_was_asked(tmp_path):
    log = predict_log(age=[63])
    log.ClearField("log_metadata")
    log.predict_log.request.model_spec.name = "patients"
    with tf.io.TFRecordWriter(str(tmp_path / "log.tfrecord.gz"), "GZIP") as writer:
        writer.write(log.SerializeToString())
        writer.write(b"\xff no message")

    logged = LoggedRequests([str(tmp_path / "log.tfrecord.gz")], "patients", {"age": "age"})

    assert list(logged) == [{"age": [63]}]
    assert logged.damaged == [f"{tmp_path}/log.tfrecord.gz, record 2"]
    assert logged.seconds is None


# Examples.


def written(split: Path) -> list[dict[str, list]]:
    rows = []
    for record in tf.data.TFRecordDataset(str(next(split.iterdir())), "GZIP").as_numpy_iterator():
        features = tf.train.Example.FromString(record).features.feature
        rows.append({name: list(getattr(value, value.WhichOneof("kind")).value) for name, value in features.items()})
    return rows


def test_what_stands_for_a_missing_value_is_missing(tmp_path):
    whole = {"age": [63, MISSING_INTEGER], "thal": [b"", b"fixed"]}
    fractions = [2.5, float(np.float32(MISSING_FLOAT)), float("nan"), float("inf"), None]
    other = {"age": [*fractions, b"63"], "thal": [b" ", b"normal", None, b"2", b"x", 7]}

    assert write_examples([whole, other], TABLE, tmp_path / "split") == 8
    assert written(tmp_path / "split") == [
        {"age": [63.0]},
        {"thal": [b"fixed"]},
        {"age": [2.5]},
        {"thal": [b"normal"]},
        {},
        {"thal": [b"2"]},
        {"thal": [b"x"]},
        {},
    ]


def test_a_column_that_a_request_lacks_is_missing_in_its_rows(tmp_path):
    write_examples([{"age": [1, 2]}, {"thal": [b"a"]}, {"age": [3], "thal": [b"b"]}], TABLE, tmp_path / "split")
    rows = written(tmp_path / "split")
    assert rows == [{"age": [1.0]}, {"age": [2.0]}, {"thal": [b"a"]}, {"age": [3.0], "thal": [b"b"]}]


def test_texts_are_measured(tmp_path):
    batches = [{"review": ["Für  Elise".encode(), b"  ", b"one"]}]
    write_examples(batches, TEXTS, tmp_path / "split")
    rows = written(tmp_path / "split")
    assert rows == [{"characters": [10.0], "words": [2.0]}, {}, {"characters": [3.0], "words": [1.0]}]


def test_photos_are_measured_as_files_and_as_base64_text(tmp_path):
    file = photo("red", "JPEG")
    batches = [{"image": [file, urlsafe_b64encode(file), b"no photo", b""]}]
    write_examples(batches, PHOTOS, tmp_path / "split")

    width, height = tf.io.decode_jpeg(file).shape[1::-1]
    expected = {"bytes": [float(len(file))], "format": [b"JPEG"], "width": [float(width)], "height": [float(height)]}
    assert written(tmp_path / "split") == [expected, expected, {}, {}]
