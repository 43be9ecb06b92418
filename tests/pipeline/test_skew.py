"""Logged requests, and `ingraph skew` on them."""

from __future__ import annotations

import csv
import io
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner, Result
from tensorflow_metadata.proto.v0 import statistics_pb2
from tensorflow_serving.apis import prediction_log_pb2

from components.request_logs import Damage, LoggedRequests, read_records, request_columns
from pipeline import demo_data
from pipeline.cli import main
from pipeline.config import load_config
from pipeline.skew.compare import (
    REQUESTS,
    TRAINING,
    Comparison,
    SkewVerdict,
    compare_examples,
    comparison,
    write_examples,
)
from serving.client.grpc import GrpcClient
from serving.client.rest import RestClient
from serving.client.table_columns import table_columns
from serving.missing_values import MISSING_FLOAT, MISSING_INTEGER
from serving.server.app import EmbeddedServer
from serving.server.config import RequestLogOptions
from serving.server.options import ServerOptions
from tests.pipeline.conftest import PROJECT, HeartRun
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


CONFIG = str(PROJECT / "configs/heart.yaml")
COLUMNS = 13


@pytest.fixture(scope="module")
def patients() -> list[dict[str, str]]:
    with demo_data.fetch("hearts").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def ask(heart_run: HeartRun, tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[dict[str, str]]], str]:
    """Asks a server that logs, over REST and gRPC and by both signatures in turns; answers the logs' pattern."""

    def ask(rows: list[dict[str, str]]) -> str:
        prefix = str(tmp_path_factory.mktemp("logs") / "heart")
        options = ServerOptions(rest_port=0, grpc_port=0, request_log=RequestLogOptions(prefix, 1.0))
        with (
            EmbeddedServer({"heart": str(heart_run.base_path)}, options) as server,
            RestClient(port=server.rest_port) as rest,
            GrpcClient(port=server.grpc_port) as grpc,
        ):
            inputs = grpc.metadata("heart").signatures["classify"].inputs
            for number, start in enumerate(range(0, len(rows), 20)):
                client = (rest, grpc)[number % 2]
                signature = ("serving_default", "classify")[number // 2 % 2]
                client.predict("heart", table_columns(rows[start : start + 20], inputs, "patients"), signature)
        return f"{prefix}-*"

    return ask


@pytest.fixture(scope="module")
def same(ask, patients) -> str:
    return ask(patients)


@pytest.fixture
def skew(heart_run: HeartRun) -> Callable[..., Result]:
    def invoke(logs: str, *options: str) -> Result:
        arguments = ["skew", CONFIG, "--workdir", str(heart_run.workdir), "--logs", logs, *options]
        return CliRunner().invoke(main, arguments)

    return invoke


def findings(result: Result) -> dict[str, str]:
    """Column -> what is said of it."""
    block = result.stdout.split("\n\n")[1]
    return dict(line.split(maxsplit=1) for line in block.splitlines())


def test_requests_like_the_training_data_are_no_skew(skew, same, heart_run):
    result = skew(same)

    assert result.exit_code == 0, result.output
    asked = r"requests   303 rows of 16 requests in 1 log, \d{4}-\d\d-\d\d \d\d:\d\d to .* UTC\n"
    assert re.match(asked, result.stdout)
    assert f"training   256 rows of version {heart_run.served_version} in {heart_run.base_path}\n" in result.stdout
    assert "left out" not in result.stdout
    assert result.stdout.endswith("no skew    in any of 13 columns\n")
    assert len(findings(result)) == COLUMNS
    assert all(said.startswith("fine: divergence 0.0") for said in findings(result).values())
    assert "target" not in findings(result)


def test_columns_that_moved_or_are_not_sent_any_more_are_named_with_what_they_hold(skew, ask, patients):
    moved = [{**row, "age": str(int(float(row["age"])) + 40), "thal": "", "oldpeak": ""} for row in patients]
    for row in moved[: len(moved) // 10]:
        row["oldpeak"] = "1.5"

    result = skew(ask(moved), "--set", "skew.maximum_of.oldpeak=null")

    assert result.exit_code == 3, result.output
    assert "skewed     2 of 12 columns: thal, age\n" in result.stdout
    said = findings(result)
    assert said["thal"] == (
        "skewed: no request has a value, in the training data 100.0%: divergence 1.0000, expected at most 0.3. "
        "Requests: no value. Training: normal (145), reversible (95), fixed (15), 2 (1)."
    )
    assert re.fullmatch(
        r"skewed: other values: divergence 0\.9\d+, expected at most 0\.3\. "
        r"Requests: 69 to 117, mean 94\.\d+\. Training: 34 to 77, mean 54\.\d+\.",
        said["age"],
    )
    assert "oldpeak" not in said
    assert said["sex"].startswith("fine")


def test_values_that_are_sometimes_missing_are_compared_by_how_often(skew, ask, patients):
    sparse = [{**row, "chol": "" if number % 10 else row["chol"]} for number, row in enumerate(patients)]

    result = skew(ask(sparse))

    assert result.exit_code == 3, result.output
    said = "skewed: 10.2% of the requests have a value, in the training data 100.0%: divergence "
    assert findings(result)["chol"].startswith(said)


def test_the_bounds_of_the_config_count(skew, same):
    result = skew(same, "--set", "skew.maximum=0.02", "--set", "skew.maximum_of.thalach=0.3")

    assert "expected at most 0.3" in findings(result)["thalach"]
    assert "expected at most 0.02" in findings(result)["age"]
    # 303 rows are too few for so narrow a bound: said, and not called fine.
    assert findings(result)["chol"].startswith("too few rows to tell: divergence 0.0")
    assert result.exit_code == 2


def test_too_few_requests_are_said_to_be_too_few(skew, ask, patients):
    result = skew(ask(patients[:10]))

    assert result.exit_code == 2
    assert "requests   10 rows of 1 request in 1 log" in result.stdout
    assert "too few    rows to tell of " in result.stdout
    assert re.search(r"too few rows to tell: divergence .*, and chance alone explains 0\.8\d+\n", result.stdout)


def test_what_is_damaged_or_of_others_is_counted_and_the_rest_is_read(skew, same, tmp_path):
    (log,) = Path(same[:-1]).parent.iterdir()
    content = log.read_bytes()
    records = list(tf.data.TFRecordDataset(str(log)).as_numpy_iterator())
    damaged = bytearray(content)
    damaged[len(records[0]) + 16 + 40] ^= 0xFF  # in the second record
    (tmp_path / "heart-1.tfrecord").write_bytes(damaged)
    (tmp_path / "heart-2.tfrecord").write_bytes(content[:-5])
    with tf.io.TFRecordWriter(str(tmp_path / "heart-3.tfrecord")) as writer:
        other = prediction_log_pb2.PredictionLog.FromString(records[0])
        other.log_metadata.model_spec.name = "reviews"
        writer.write(other.SerializeToString())
        alien = prediction_log_pb2.PredictionLog.FromString(records[0])
        alien.log_metadata.model_spec.signature_name = "embed"
        alien.predict_log.request.ClearField("inputs")
        writer.write(alien.SerializeToString())

    result = skew(str(tmp_path))

    assert result.exit_code == 0, result.output
    # 303 twice, without a request of 20 rows here and the last one of 3 there.
    assert "requests   583 rows of 30 requests in 3 logs" in result.stdout
    lines = [line for line in result.stdout.splitlines() if line.startswith("left out")]
    assert lines == [
        f"left out   1 damaged record: {tmp_path}/heart-1.tfrecord, byte {len(records[0]) + 16:,}",
        f"left out   the last record of {tmp_path}/heart-2.tfrecord, which is cut off, or still being written",
        "left out   1 request to other models: reviews",
        "left out   1 request without an input of the training data, to the signatures embed",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file, no file matches"),
        (b"", "no request to the model heart is logged there; found no record at all"),
        (b"no log at all", r"found 1 damaged records, the first in .*heart\.tfrecord, byte 0"),
    ],
)
def test_logs_without_a_request_are_refused(skew, tmp_path, content, message):
    if content is not None:
        (tmp_path / "heart.tfrecord").write_bytes(content)

    result = skew(str(tmp_path / "heart*"))

    assert result.exit_code == 2
    assert re.search(message, result.stderr), result.stderr


def test_it_needs_the_run_of_the_served_version_and_columns_that_are_there(skew, same, heart_run, tmp_path):
    arguments = ["skew", CONFIG, "--logs", same]
    nothing = CliRunner().invoke(main, [*arguments, "--workdir", str(tmp_path)])
    elsewhere = [*arguments, "--workdir", str(tmp_path), "--set", f"models={heart_run.workdir}/models"]
    no_run = CliRunner().invoke(main, elsewhere)
    no_column = skew(same, "--set", "skew.maximum_of.ages=0.1")

    assert (nothing.exit_code, no_run.exit_code, no_column.exit_code) == (2, 2, 2)
    assert f"{tmp_path}/models/heart: no published version there" in nothing.stderr
    assert f"the examples of its data are not in {tmp_path}/runs/heart" in no_run.stderr
    assert "skew.maximum_of names 'ages'; the columns that are compared are" in no_column.stderr


def test_of_texts_their_lengths_are_compared(tmp_path):
    texts = [b"word " * (1 + number % 9) for number in range(198)]
    for split, factor in ((TRAINING, 1), (REQUESTS, 3)):
        batches = ({"review": [text * factor]} for text in texts)
        assert write_examples(batches, TEXTS, tmp_path / "span" / f"Split-{split}") == 198

    columns = compare_examples(tmp_path, [REQUESTS, TRAINING], None, {"characters": 0.3, "words": 0.9})

    assert [(column.column, column.verdict) for column in columns] == [
        ("characters", SkewVerdict.SKEWED),
        ("words", SkewVerdict.FINE),
    ]
    assert "Requests: 15 to 135, mean 75. Training: 5 to 45, mean 25." in columns[0].finding
