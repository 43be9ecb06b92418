"""`ingraph skew`: logs of a server that was really asked, held against what the demo's model learned from."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf
from click.testing import CliRunner, Result
from tensorflow_serving.apis import prediction_log_pb2

from pipeline import demo_data
from pipeline.cli import main
from pipeline.skew.compare import REQUESTS, TRAINING, SkewVerdict, compare_examples, write_examples
from serving.client.grpc import GrpcClient
from serving.client.rest import RestClient
from serving.client.table_columns import table_columns
from serving.server.app import EmbeddedServer
from serving.server.config import RequestLogOptions
from serving.server.options import ServerOptions
from tests.pipeline.conftest import PROJECT, HeartRun
from tests.pipeline.test_logged_requests import TEXTS

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
