"""Warm-up requests of every kind, replayed before a version is available: one that fails keeps it from being so."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import prediction_log_pb2

from tests.serving.server.small_models import save_examples
from tests.serving.server.test_versions import serving, statuses

EXAMPLE = 'example_list { examples { features { feature { key: "%s" value { float_list { value: 2 } } } } } }'
CLASSIFY = 'classify_log { request { model_spec { name: "m" signature_name: "classify_x_to_y" } input { %s } } }'
REGRESS = 'regress_log { request { model_spec { name: "m" signature_name: "regress_x_to_y" } input { %s } } }'
BOTH = (
    "multi_inference_log { request { "
    'tasks { model_spec { name: "m" signature_name: "regress_x_to_y" } method_name: "tensorflow/serving/regress" } '
    'tasks { model_spec { name: "m" signature_name: "classify_x_to_y" } method_name: "tensorflow/serving/classify" } '
    "input { %s } } }"
)


def write_warm_up(version: Path, *logs: str) -> None:
    (version / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(version / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        for log in logs:
            writer.write(text_format.Parse(log, prediction_log_pb2.PredictionLog()).SerializeToString())


@pytest.mark.parametrize("kind", [CLASSIFY, REGRESS, BOTH])
@pytest.mark.parametrize(
    ("feature", "status"), [("x", ("AVAILABLE", "OK")), ("no_such_feature", ("END", "INVALID_ARGUMENT"))]
)
def test_requests_on_examples_are_replayed(tmp_path, kind, feature, status):
    save_examples(tmp_path / "1")
    write_warm_up(tmp_path / "1", kind % (EXAMPLE % feature))

    with serving(tmp_path) as server:
        assert statuses(server) == {1: status}


@pytest.mark.parametrize(
    ("log", "status"),
    [
        (CLASSIFY.replace("classify_x_to_y", "nobody") % (EXAMPLE % "x"), ("END", "FAILED_PRECONDITION")),
        (CLASSIFY.replace("classify_x_to_y", "regress_x_to_y") % (EXAMPLE % "x"), ("END", "INVALID_ARGUMENT")),
        (REGRESS % "", ("END", "INVALID_ARGUMENT")),
        ("session_run_log { }", ("END", "UNIMPLEMENTED")),
        ("", ("AVAILABLE", "OK")),
    ],
)
def test_records_that_cannot_be_replayed_keep_the_version_from_being_available(tmp_path, log, status):
    save_examples(tmp_path / "1")
    write_warm_up(tmp_path / "1", CLASSIFY % (EXAMPLE % "x"), log)

    with serving(tmp_path) as server:
        assert statuses(server) == {1: status}


def test_more_than_a_thousand_records_are_refused(tmp_path):
    save_examples(tmp_path / "1")
    write_warm_up(tmp_path / "1", *[""] * 1001)

    with serving(tmp_path) as server:
        assert statuses(server) == {1: ("END", "INVALID_ARGUMENT")}
