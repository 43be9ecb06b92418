"""ServingCheck: requests from examples, the candidate's verdict, its remark on precision, and its model server."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import prediction_log_pb2
from tfx.types import channel_utils, standard_artifacts

from components.errors import ModelUnavailable, RequestRefused
from components.serving_check import model_process
from components.serving_check.candidate import request_inputs, without_label
from components.serving_check.check import MODEL_SERVER, read_provenance, remark
from components.serving_check.component import Executor, ServingCheck
from components.serving_check.model_process import end_ahead, start_ahead
from components.serving_check.model_server import ModelServer
from tests.components.colour_model import ColourModel


def signature(**dtypes: tf.DType) -> meta_graph_pb2.SignatureDef:
    definition = meta_graph_pb2.SignatureDef()
    for name, dtype in dtypes.items():
        definition.inputs[name].dtype = dtype.as_datatype_enum
    return definition


def example(**values: list) -> tf.train.Example:
    made = tf.train.Example()
    for name, items in values.items():
        feature = made.features.feature[name]
        kind = {bytes: feature.bytes_list, int: feature.int64_list, float: feature.float_list}[type(items[0])]
        kind.value.extend(items)
    return made


def test_each_input_takes_the_feature_of_its_name_in_its_own_dtype():
    inputs = request_inputs(
        signature(age=tf.int64, oldpeak=tf.float32, thal=tf.string),
        [example(age=[63], oldpeak=[2.5], thal=[b"fixed"]), example(age=[41], oldpeak=[0.5], thal=[b"normal"])],
    )
    assert inputs["age"].dtype == np.int64
    assert inputs["oldpeak"].dtype == np.float32
    assert inputs["age"].tolist() == [63, 41]
    assert inputs["oldpeak"].tolist() == [2.5, 0.5]
    assert inputs["thal"].tolist() == [b"fixed", b"normal"]


def test_a_missing_feature_is_sent_in_the_form_of_its_dtype():
    empty = example(age=[1])
    empty.features.feature["age"].int64_list.Clear()
    inputs = request_inputs(signature(age=tf.int64, oldpeak=tf.float32, thal=tf.string), [empty])
    assert inputs["age"].tolist() == [-(2**31)]
    assert inputs["oldpeak"].tolist() == [np.float32(-1e38)]
    assert inputs["thal"].tolist() == [b""]


def test_serialized_examples_carry_no_label():
    given = without_label(example(age=[63], target=[1]), ["age"])
    (record,) = request_inputs(signature(examples=tf.string), [given])["examples"]
    assert tf.train.Example.FromString(record) == example(age=[63])


def test_an_input_of_another_name_takes_its_feature_which_serialized_examples_keep():
    given = without_label(example(review=[b"fine"], label=[b"fresh"]), ["text"], {"text": "review"})
    assert request_inputs(signature(text=tf.string), [given])["text"].tolist() == [b"fine"]
    (record,) = request_inputs(signature(examples=tf.string), [given])["examples"]
    features = tf.train.Example.FromString(record).features.feature
    assert features["review"].bytes_list.value == [b"fine"]
    assert "label" not in features


def test_an_image_goes_to_either_input_as_bytes():
    photo = without_label(example(image_bytes=[b"png"], label=[b"cat"]), ["image"])
    assert request_inputs(signature(image=tf.string), [photo])["image"].tolist() == [b"png"]
    assert request_inputs(signature(image_bytes=tf.string), [photo])["image_bytes"].tolist() == [b"png"]


def test_several_values_of_a_feature_fill_a_row_up_with_missing_ones():
    given = [example(tags=[b"a", b"b"]), example(), example(tags=[b"c"])]
    inputs = request_inputs(signature(tags=tf.string), given)
    assert inputs["tags"].tolist() == [[b"a", b"b"], [b"", b""], [b"c", b""]]
    assert request_inputs(signature(tags=tf.string), given[1:])["tags"].tolist() == [b"", b"c"]


def test_a_feature_that_fits_no_request_is_refused():
    with pytest.raises(RequestRefused, match="feature 'age' of an example is a float_list, its input takes int64"):
        request_inputs(signature(age=tf.int64), [example(age=[1.5])])


def test_a_gain_is_said_for_each_batch_size():
    gain = {"precision": "bfloat16", "time_of_float32": {"1": 0.512, "8": 0.49}}
    assert remark(gain) == "bfloat16: the network takes 0.51 at batch 1, 0.49 at batch 8 of its time in float32"


def test_no_gain_is_said_with_what_would_gain():
    assert remark({"precision": "bfloat16", "time_of_float32": {"1": 1.0, "8": 1.08}}).endswith(
        "so nothing is gained on this machine; it is for CPUs with AVX512-BF16 or AMX"
    )


def test_what_int8_tells_is_said_and_why_it_is_refused():
    figures = {"time_of_float32": {"1": 0.394, "8": 0.31}, "told": {"float32": 0.966, "int8": 0.9524}}
    share = "takes 0.39 at batch 1, 0.31 at batch 8 of its time in float32"
    gained = f"the network {share}, and tells 0.9524 of the photos for 0.9660"
    assert remark({"precision": "int8", **figures}) == f"int8: {gained}"
    limits = {"time_of_float32": 0.6, "fewer_told": 0.005}
    assert remark({"precision": "float32", "int8_refused": figures | {"limits": limits}}) == (
        f"exported in float32, for int8 is refused: {gained}; expected at most 0.6 of the time, and at most 0.005 fewer"
    )
    assert remark({"precision": "float32", "int8_refused": {"reason": "it has none"}}) == (
        "exported in float32, for int8 is refused: it has none"
    )


def test_how_a_wrapped_table_agrees_with_its_library_is_said_of_all_rows():
    assert remark({"wrapped": {"rows": 48842, "labels_equal": 48842, "greatest_difference": 2.4e-7}}) == (
        "of all 48,842 rows of the data, 48,842 labels are the library's; probabilities are 2e-07 apart at most"
    )


def test_how_many_rows_were_learned_from_on_disk_is_said():
    streamed = {"rows": 2_000_000, "memory": 2**30}
    sentence = "learned from 2,000,000 rows on disk, for trainer.memory is 1,073,741,824 bytes"
    assert remark({"streamed": streamed}) == sentence
    of_members = streamed | {"rows_in_memory": 500_000}
    assert remark({"streamed": of_members}) == f"{sentence}; what is no network, from 500,000 of them"


def test_nothing_is_said_of_float32_and_of_models_without_provenance(tmp_path):
    assert remark({"precision": "float32"}) == ""
    assert read_provenance(str(tmp_path / "missing.json")) == {}


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


# The binary is in no Python package: this stands in for it, with its flags, over the same session loader.
# Its first lines are shell and Python at once, since a path with a space cannot stand behind `#!`.
STAND_IN = """#!/bin/sh
'''exec' "{python}" "$0" "$@"
' '''
import argparse, os, sys
from concurrent.futures import ThreadPoolExecutor
import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from serving.session_model import SessionModel

parser = argparse.ArgumentParser()
for flag in ("port", "grpc_channel_arguments", "model_name", "model_base_path"):
    parser.add_argument("--" + flag, required=True)
flags = parser.parse_args()
(version,) = os.listdir(flags.model_base_path)
model = SessionModel(os.path.join(flags.model_base_path, version))


class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    def Predict(self, request, context):
        if request.model_spec.name != flags.model_name:
            context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found for request")
        inputs = {{name: tf.make_ndarray(value) for name, value in request.inputs.items()}}
        try:
            outputs = model.run(request.model_spec.signature_name, inputs)
        except tf.errors.OpError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        response = predict_pb2.PredictResponse()
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response


server = grpc.server(ThreadPoolExecutor(2))
prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
assert server.add_insecure_port("127.0.0.1:" + flags.port)
server.start()
server.wait_for_termination()
"""


def executable(folder: Path, text: str) -> str:
    path = folder / MODEL_SERVER
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def stand_in(tmp_path):
    return executable(tmp_path, STAND_IN.format(python=sys.executable))


class NeedsTheLabel(ColourModel):
    def transform_features(self, examples):
        return {"label": tf.io.parse_example(examples, {"label": tf.io.FixedLenFeature([], tf.string)})["label"]}


def test_a_binary_on_the_path_is_asked_the_same(trained, eval_examples, artifact, stand_in, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(stand_in).parent), prepend=os.pathsep)
    blessing = artifact(standard_artifacts.InfraBlessing, "blessing")
    Executor().Do(
        {"model": [trained(NeedsTheLabel)], "examples": [eval_examples]},
        {"blessing": [blessing]},
        {
            "eval_split": "eval",
            "tolerance": "1e-05",
            "maximum_examples": 1000,
            "feature_of_input": "{}",
            "timeout_seconds": 60,
        },
    )
    report = json.loads(Path(blessing.uri, "report.json").read_text())
    assert report["loaders"] == ["session", stand_in]
    in_session, in_server = report["reasons"]
    assert in_session.startswith("transform_features, batch from example ")
    assert in_server.startswith("tensorflow_model_server: transform_features, batch from example ")
    assert "INVALID_ARGUMENT: " in in_server
    assert "Feature: label" in in_server


def test_a_server_that_ends_is_unavailable_with_its_last_words(tmp_path):
    (tmp_path / "saved_model").mkdir()
    binary = executable(tmp_path, "#!/bin/sh\necho 'cannot load the servable' >&2\nexit 3\n")
    with (
        pytest.raises(ModelUnavailable, match="ended with status 3: cannot load the servable"),
        ModelServer(binary, str(tmp_path / "saved_model"), timeout_seconds=20),
    ):
        pass


def test_a_server_that_never_listens_is_given_up(tmp_path):
    (tmp_path / "saved_model").mkdir()
    binary = executable(tmp_path, "#!/bin/sh\nexec sleep 60\n")
    with (
        pytest.raises(ModelUnavailable, match=r"did not load the model in 0\.5 s"),
        ModelServer(binary, str(tmp_path / "saved_model"), timeout_seconds=0.5),
    ):
        pass
