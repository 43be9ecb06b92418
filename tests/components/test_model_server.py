import json
import os
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from tfx.types import standard_artifacts

from components.errors import ModelUnavailable
from components.serving_check.check import MODEL_SERVER
from components.serving_check.executor import Executor
from components.serving_check.model_server import ModelServer
from tests.components.colour_model import ColourModel

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
