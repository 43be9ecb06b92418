"""Calls as the guides and example clients of TensorFlow Serving make them: curl, requests, a stock gRPC stub."""

from __future__ import annotations

import base64
import json
import subprocess
import threading

import grpc
import pytest
import requests
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


@pytest.fixture(scope="module")
def address(server):
    return f"http://127.0.0.1:{server.rest_port}"


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def jpeg():
    return tf.io.encode_jpeg(tf.zeros([4, 6, 3], tf.uint8)).numpy()


def curl(*arguments):
    finished = subprocess.run(
        ["curl", "--silent", "--noproxy", "*", *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(finished.stdout)


def test_curl_predicts_with_half_plus_two_in_rows(address):
    url = f"{address}/v1/models/half_plus_two:predict"

    assert curl("-d", '{"instances": [1.0, 2.0, 5.0]}', "-X", "POST", url) == {"predictions": [2.5, 3.0, 4.5]}


def test_curl_predicts_with_half_plus_two_in_columns(address):
    url = f"{address}/v1/models/half_plus_two/versions/123:predict"

    assert curl("-d", '{"inputs": {"x": [1.0, 2.0, 5.0]}}', url) == {"outputs": [2.5, 3.0, 4.5]}


def test_curl_sends_a_body_that_waits_for_100_continue(address, tmp_path):
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"instances": [1.0] * 500_000}))

    answer = curl(
        "-H", "Expect: 100-continue", "--data-binary", f"@{body}", f"{address}/v1/models/half_plus_two:predict"
    )

    assert answer["predictions"] == [2.5] * 500_000


def test_curl_classifies_and_regresses(address):
    examples = '{"signature_name": "regress_x_to_y", "examples": [{"x": 1.0}, {"x": 2.0}]}'

    assert curl("-d", examples, f"{address}/v1/models/examples:regress") == {"results": [2.5, 3.0]}


def test_curl_reads_status_and_metadata(address):
    (version,) = curl(f"{address}/v1/models/half_plus_two")["model_version_status"]
    assert version["state"] == "AVAILABLE"

    signatures = curl(f"{address}/v1/models/half_plus_two/metadata")["metadata"]["signature_def"]["signature_def"]
    assert signatures["serving_default"]["inputs"]["x"]["dtype"] == "DT_FLOAT"


def test_the_resnet_client_s_rest_call_sends_an_image_as_base64(address, jpeg):
    encoded = base64.b64encode(jpeg).decode()
    body = f'{{"instances" : [{{"b64": "{encoded}"}}]}}'

    with requests.Session() as session:
        session.trust_env = False
        for _ in range(3):
            response = session.post(f"{address}/v1/models/decoder:predict", data=body, timeout=30)
            response.raise_for_status()

    assert response.json()["predictions"][0] == [4, 6, 3]


def test_the_resnet_client_s_grpc_call_sends_an_image_as_bytes(stub, jpeg):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "decoder"
    request.model_spec.signature_name = "serving_default"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(jpeg, shape=[1]))

    assert list(stub.Predict(request, 10.0).outputs["size"].int_val) == [4, 6, 3]


def test_the_mnist_client_s_calls_run_at_the_same_time_and_end_in_callbacks(stub):
    answered, done = [], threading.Semaphore(0)

    def note(future):
        answered.append(list(future.result().outputs["probabilities"].float_val))
        done.release()

    for number in range(100):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "greeting"
        request.model_spec.signature_name = "classify"
        request.inputs["text"].CopyFrom(tf.make_tensor_proto([str(number)], shape=[1]))
        stub.Predict.future(request, 30.0).add_done_callback(note)
    for _ in range(100):
        assert done.acquire(timeout=60)

    assert answered == [[0.75, 0.25]] * 100
