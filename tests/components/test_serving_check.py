import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2
from tfx.types import channel_utils, standard_artifacts

from components.serving_check import model_process
from components.serving_check.component import ServingCheck
from components.serving_check.executor import Executor
from components.serving_check.model_process import end_ahead, start_ahead
from tests.components.colour_model import ColourModel


@pytest.fixture
def check(artifact, eval_examples):
    """Runs the executor on a model; answers the blessing and report.json."""

    def run(model, timeout_seconds=60):
        blessing = artifact(standard_artifacts.InfraBlessing, "blessing")
        Executor().Do(
            {"model": [model], "examples": [eval_examples]},
            {"blessing": [blessing]},
            {
                "eval_split": "eval",
                "tolerance": "1e-05",
                "maximum_examples": 1000,
                "timeout_seconds": timeout_seconds,
                "feature_of_input": "{}",
            },
        )
        return blessing, json.loads(Path(blessing.uri, "report.json").read_text())

    return run


def assert_not_blessed(blessing, report):
    assert not report["blessed"]
    assert blessing.get_int_custom_property("blessed") == 0
    assert blessing.get_int_custom_property("has_model") == 0
    assert blessing.get_string_custom_property("reason") == "\n".join(report["reasons"])
    assert Path(blessing.uri, "INFRA_NOT_BLESSED").exists()
    assert not Path(blessing.uri, "stamped_model").exists()


def checksums(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_faithful_model_is_blessed_and_stamped_with_warmup_requests(trained, check):
    model = trained()
    blessing, report = check(model)
    assert report["reasons"] == []
    assert (report["examples"], report["checked"], report["left_out"]) == (40, 40, 0)
    assert report["loaders"] == ["session"]
    assert report["load_seconds"] > 0
    for signature in ("serving_default", "classify", "serve_examples"):
        for batch_size in ("1", "32"):
            figures = report["latency_ms"][signature][batch_size]
            assert 0 < figures["p50"] <= figures["p99"]
    assert blessing.get_int_custom_property("blessed") == 1
    assert blessing.get_int_custom_property("has_model") == 1
    assert Path(blessing.uri, "INFRA_BLESSED").exists()

    stamped = checksums(Path(blessing.uri, "stamped_model"))
    warmup = stamped.pop("assets.extra/tf_serving_warmup_requests")
    assert warmup
    assert stamped == checksums(Path(model.uri, "Format-Serving"))

    records = tf.data.TFRecordDataset(f"{blessing.uri}/stamped_model/assets.extra/tf_serving_warmup_requests")
    requests = [
        prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        for record in records.as_numpy_iterator()
    ]
    assert [(request.model_spec.signature_name, set(request.inputs)) for request in requests] == [
        ("serving_default", {"size", "shape"}),
        ("serving_default", {"size", "shape"}),
        ("classify", {"size", "shape"}),
        ("classify", {"size", "shape"}),
        ("serve_examples", {"examples"}),
        ("serve_examples", {"examples"}),
    ]
    assert [len(tf.make_ndarray(request.inputs["size"])) for request in requests[:4]] == [1, 32, 1, 32]
    assert tf.make_ndarray(requests[0].inputs["size"]).dtype == np.float32


class Shifted(ColourModel):
    def serve_examples(self, examples):
        return {"probabilities": super().serve_examples(examples)["probabilities"] + 1e-3}


def test_a_model_that_answers_differently_is_not_blessed_and_stops_nothing(trained, check):
    blessing, report = check(trained(Shifted))
    assert_not_blessed(blessing, report)
    assert report["reasons"][0].startswith("serve_examples, example ")
    assert report["checked"] == 40


def test_a_model_that_no_session_loads_is_not_blessed_with_the_loaders_words(trained, check):
    model = trained()
    for file in Path(model.uri, "Format-Serving", "variables").iterdir():
        file.unlink()
    graph = Path(model.uri, "Format-Serving", "saved_model.pb")
    graph.write_bytes(graph.read_bytes().replace(b"TextFileInitializer", b"NoSuchInitializer12"))
    blessing, report = check(model)
    assert_not_blessed(blessing, report)
    (reason,) = report["reasons"]
    assert reason.startswith("the model does not load in a session: ")
    assert report["load_seconds"] is None


def test_a_model_without_saved_model_pb_is_not_blessed(trained, check):
    model = trained()
    Path(model.uri, "Format-Serving", "saved_model.pb").unlink()
    blessing, report = check(model)
    assert_not_blessed(blessing, report)
    assert "stamped_model/saved_model.pb" in report["reasons"][0]


class Crashes(ColourModel):
    def classify(self, size, shape):
        with tf.control_dependencies([tf.raw_ops.Abort(error_msg="the kernel gave up")]):
            return super().classify(tf.identity(size), shape)


def test_a_model_that_takes_its_server_down_is_not_blessed(trained, check):
    blessing, report = check(trained(Crashes))
    assert_not_blessed(blessing, report)
    assert report["reasons"][-1].startswith("classify, batch of 32 from example ")
    assert "the model's process ended with status -6" in report["reasons"][-1]
    assert "the kernel gave up" in report["reasons"][-1]


def test_a_model_that_answers_too_late_is_not_blessed(trained, check):
    blessing, report = check(trained(), timeout_seconds=0.05)
    assert_not_blessed(blessing, report)
    assert report["reasons"] == ["the model's process gave no answer in 0.05 s"]


def test_the_component_hands_its_tolerance_on_exactly():
    component = ServingCheck(
        model=channel_utils.as_channel([standard_artifacts.Model()]),
        examples=channel_utils.as_channel([standard_artifacts.Examples()]),
        tolerance=2.5e-06,
        feature_of_input={"text": "review"},
    )
    assert component.exec_properties == {
        "eval_split": "eval",
        "tolerance": "2.5e-06",
        "maximum_examples": 1000,
        "timeout_seconds": 300,
        "feature_of_input": '{"text": "review"}',
    }
    assert component.outputs["blessing"].type == standard_artifacts.InfraBlessing


def test_a_process_that_was_started_ahead_is_the_one_that_checks(trained, check):
    start_ahead()
    start_ahead()
    (waiting,) = model_process._ahead
    assert waiting.process.poll() is None
    _, report = check(trained())
    assert report["reasons"] == []
    assert waiting.process.poll() is not None
    assert not model_process._ahead


def test_a_process_that_no_check_took_is_ended():
    start_ahead()
    (waiting,) = model_process._ahead
    end_ahead()
    end_ahead()
    assert waiting.process.poll() is not None


def test_a_process_that_was_started_ahead_and_died_fails_the_check_in_words(trained, check, monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "no number")
    start_ahead()
    _, report = check(trained())
    assert not report["blessed"]
    assert "the model's process ended with status 1" in report["reasons"][0]
