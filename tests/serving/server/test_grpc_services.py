"""The gRPC port, asked with the generated stubs of tensorflow-serving-api."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.server.app import EmbeddedServer

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@pytest.fixture(scope="module")
def channel(server: EmbeddedServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}", UNLIMITED) as channel:
        yield channel


@pytest.fixture(scope="module")
def prediction(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def predict_request(model, signature="", output_filter=(), **inputs):
    request = predict_pb2.PredictRequest(output_filter=output_filter)
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name, tensor in inputs.items():
        request.inputs[name].CopyFrom(tensor)
    return request


def refusal(call, request):
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=30)
    return caught.value.code(), caught.value.details()


def test_predict_answers_with_the_resolved_model_spec(prediction):
    response = prediction.Predict(predict_request("half_plus_two", x=tf.make_tensor_proto([1.0, 2.0])), timeout=30)

    assert tf.make_ndarray(response.outputs["y"]).tolist() == [2.5, 3.0]
    assert response.model_spec.name == "half_plus_two"
    assert response.model_spec.version.value == 123
    assert response.model_spec.signature_name == "serving_default"


def test_outputs_use_the_typed_fields(prediction):
    response = prediction.Predict(predict_request("half_plus_two", x=tf.make_tensor_proto([1.0, 2.0])), timeout=30)

    assert list(response.outputs["y"].float_val) == [2.5, 3.0]
    assert response.outputs["y"].tensor_content == b""


@pytest.mark.parametrize(
    "tensor",
    [
        tf.make_tensor_proto(np.array([[1, 1], [1, 1]], np.float32)),
        tensor_pb2.TensorProto(
            dtype=tf.float32.as_datatype_enum, tensor_shape=tf.TensorShape([2, 2]).as_proto(), float_val=[1.0]
        ),
        tensor_pb2.TensorProto(
            dtype=tf.float32.as_datatype_enum, tensor_shape=tf.TensorShape([2, 2]).as_proto(), float_val=[1.0] * 4
        ),
    ],
    ids=["tensor_content", "one value for the shape", "all values"],
)
def test_inputs_may_use_any_form_of_a_tensor_proto(prediction, tensor):
    response = prediction.Predict(predict_request("half_plus_two", x=tensor), timeout=30)

    assert tf.make_ndarray(response.outputs["y"]).tolist() == [[2.5, 2.5], [2.5, 2.5]]


def test_every_dtype_comes_back_as_it_was_sent(prediction):
    sent = {
        "bool": np.array([True, False]),
        "double": np.array([1e308, -0.5]),
        "int32": np.array([-(2**31), 7], np.int32),
        "int64": np.array([2**62, -1]),
        "uint8": np.array([0, 255], np.uint8),
    }

    request = predict_request("types", **{name: tf.make_tensor_proto(values) for name, values in sent.items()})
    response = prediction.Predict(request, timeout=30)

    for name, values in sent.items():
        received = tf.make_ndarray(response.outputs[f"{name}_out"])
        assert received.dtype == values.dtype
        assert received.tolist() == values.tolist()


@pytest.mark.parametrize(
    ("signature", "expected"),
    [("complex", {"z": [1.5 + 1.5j]}), ("half", {"z": [1.5], "w": [1.5]})],
)
def test_dtypes_that_json_cannot_carry_are_answered(prediction, signature, expected):
    response = prediction.Predict(predict_request("types", signature, x=tf.make_tensor_proto([1.5])), timeout=30)

    assert {name: tf.make_ndarray(proto).tolist() for name, proto in response.outputs.items()} == expected


def test_an_output_filter_leaves_the_others_out(prediction):
    request = predict_request("greeting", "classify", ["labels"], text=tf.make_tensor_proto(["a"]))

    response = prediction.Predict(request, timeout=30)

    assert list(response.outputs) == ["labels"]
    assert tf.make_ndarray(response.outputs["labels"]).tolist() == [[b"good", b"bad"]]


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (predict_pb2.PredictRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (predict_request(""), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (predict_request("foo"), "NOT_FOUND", "Servable not found for request: Latest(foo)"),
        (predict_request("half_plus_two", "zzz"), "FAILED_PRECONDITION", 'Serving signature key "zzz" not found.'),
        (
            predict_request("half_plus_two"),
            "INVALID_ARGUMENT",
            "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
        ),
        (
            predict_request("half_plus_two", y=tf.make_tensor_proto(1.0)),
            "INVALID_ARGUMENT",
            "input tensor alias not found in signature: y. Inputs expected to be in the set {x}.",
        ),
        (
            predict_request("half_plus_two", x=tf.make_tensor_proto(np.float64(1))),
            "INVALID_ARGUMENT",
            "to be float but double is provided",
        ),
        (
            predict_request("half_plus_two", x=tensor_pb2.TensorProto(dtype=1, tensor_content=b"abc")),
            "INVALID_ARGUMENT",
            "tensor parsing error: x",
        ),
        (
            predict_request(
                "half_plus_two",
                x=tensor_pb2.TensorProto(dtype=1, tensor_shape=tf.TensorShape([2**40]).as_proto(), float_val=[1.0]),
            ),
            "INVALID_ARGUMENT",
            "tensor parsing error: x",
        ),
        (
            predict_request("half_plus_two", output_filter=["z"], x=tf.make_tensor_proto(1.0)),
            "INVALID_ARGUMENT",
            "output tensor alias not found in signature: z Outputs expected to be in the set {y}.",
        ),
        (
            predict_request("half_plus_two", output_filter=["y", "y"], x=tf.make_tensor_proto(1.0)),
            "INVALID_ARGUMENT",
            "duplicate output tensor alias: y",
        ),
        (
            predict_request("decoder", image_bytes=tf.make_tensor_proto([b"noise"])),
            "INVALID_ARGUMENT",
            "Unknown image file format.",
        ),
    ],
)
def test_a_predict_request_that_cannot_be_answered_is_refused(prediction, request_, code, message):
    received_code, received = refusal(prediction.Predict, request_)

    assert received_code.name == code
    assert message in received


def test_a_version_and_a_label_are_looked_up(prediction):
    request = predict_request("half_plus_two", x=tf.make_tensor_proto([1.0]))
    request.model_spec.version.value = 123
    assert prediction.Predict(request, timeout=30).model_spec.version.value == 123

    request.model_spec.version_label = "stable"
    code, message = refusal(prediction.Predict, request)
    assert (code.name, message) == ("INVALID_ARGUMENT", "Unrecognized servable version label: stable")


def test_a_long_error_is_cut(prediction):
    code, message = refusal(prediction.Predict, predict_request("x" * 5000))

    assert code.name == "NOT_FOUND"
    assert message.endswith("...TRUNCATED")
    assert len(message) == 1024 + len("...TRUNCATED")


def test_messages_over_four_megabytes_are_carried_both_ways(prediction):
    values = np.zeros(2_000_000, np.float32)

    response = prediction.Predict(predict_request("half_plus_two", x=tf.make_tensor_proto(values)), timeout=60)

    assert len(response.outputs["y"].float_val) == 2_000_000


def test_metadata_packs_the_signatures(prediction):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "patients"

    response = prediction.GetModelMetadata(request, timeout=30)

    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert response.model_spec.version.value == 1
    assert sorted(signatures.signature_def["serving_default"].inputs) == ["age", "oldpeak", "thal"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [([], "must specify at least one metadata_field"), (["weights"], "Metadata field weights is not supported")],
)
def test_metadata_has_one_field(prediction, fields, message):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = "patients"

    code, received = refusal(prediction.GetModelMetadata, request)

    assert code.name == "INVALID_ARGUMENT"
    assert message in received


def test_the_model_service_tells_the_state_of_versions(channel):
    service = model_service_pb2_grpc.ModelServiceStub(channel)
    request = get_model_status_pb2.GetModelStatusRequest()
    assert refusal(service.GetModelStatus, request)[1] == "Missing ModelSpec"

    request.model_spec.name = "half_plus_two"
    (version,) = service.GetModelStatus(request, timeout=30).model_version_status
    assert (version.version, version.state, version.status.error_code) == (123, version.AVAILABLE, 0)

    request.model_spec.name = "foo"
    code, message = refusal(service.GetModelStatus, request)
    assert (code.name, message) == ("NOT_FOUND", "Could not find any versions of model foo")


@pytest.mark.parametrize(
    ("method", "request_type"),
    [
        ("PredictionService/Predict", "PredictRequest"),
        ("PredictionService/MultiInference", "MultiInferenceRequest"),
        ("ModelService/GetModelStatus", "GetModelStatusRequest"),
    ],
)
def test_bytes_that_are_no_request_are_refused_without_a_stack_trace(channel, caplog, method, request_type):
    code, message = refusal(channel.unary_unary(f"/tensorflow.serving.{method}"), b"\xff\xff")

    assert (code.name, message) == ("INTERNAL", f"Error parsing message with type 'tensorflow.serving.{request_type}'")
    assert caplog.text == ""


def test_a_method_that_does_not_exist_is_unimplemented(channel):
    code, _ = refusal(channel.unary_unary("/tensorflow.serving.PredictionService/Guess"), b"")

    assert code.name == "UNIMPLEMENTED"


def test_an_error_that_quotes_bytes_which_are_no_text_is_told(prediction):
    request = predict_request("examples", "predict", inputs=tf.make_tensor_proto([b"\x80\xff"]))

    code, message = refusal(prediction.Predict, request)

    assert code.name == "INVALID_ARGUMENT"
    assert "Could not parse example" in message
