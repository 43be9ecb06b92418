"""Classify and regress over REST and gRPC, and MultiInference, on a model with such signatures."""

from __future__ import annotations

import math
from collections.abc import Iterator

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from serving.server.app import EmbeddedServer

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"


def results(rest, verb, examples, **more):
    answer = rest.call("POST", f"/v1/models/examples:{verb}", {"examples": examples, **more})
    assert answer.status == 200, answer.text
    return answer.json["results"]


def error(rest, verb, body, model="examples"):
    answer = rest.call("POST", f"/v1/models/{model}:{verb}", body)
    return answer.status, answer.error


# REST.


def test_classify_without_classes_has_empty_labels(rest):
    assert results(rest, "classify", [{"x": 20.0}], signature_name="classify_x_to_y") == [[["", 12.0]]]


def test_classify_answers_a_list_of_pairs_for_each_example(rest):
    examples = [{"x": [20.0], "x2": 2.0}, {"x": -100.0}]

    assert results(rest, "classify", examples, signature_name="classify_both") == [
        [["above", 12.0], ["above", 4.0]],
        [["below", -48.0], ["above", 3.0]],
    ]


def test_classify_without_scores_answers_zeros(rest):
    assert results(rest, "classify", [{"x": 1.0}], signature_name="classify_classes") == [
        [["above", 0.0], ["above", 0.0]]
    ]


def test_regress_answers_a_number_for_each_example(rest):
    assert results(rest, "regress", [{"x": 80.0}], signature_name="regress_x_to_y") == [42.0]
    assert results(rest, "regress", [{"x": 80.0}, {"x": 1.0}]) == [42.0, 2.5]


def test_the_context_belongs_to_every_example(rest):
    examples, context = [{"x": 1.0}, {"x": 2.0}], {"x2": 10.0}

    answer = results(rest, "regress", examples, context=context, signature_name="regress_x2_to_y3")

    assert answer == [8.0, 8.0]


def test_what_an_example_says_counts_more_than_its_context(rest):
    assert results(rest, "regress", [{"x": 2.0}, {}], context={"x": 10.0}) == [3.0, 7.0]


def test_numbers_that_are_not_finite_come_back_as_bare_tokens(rest):
    answer = rest.call("POST", "/v1/models/examples:regress", b'{"examples": [{"x": NaN}, {"x": -Infinity}]}')

    assert math.isnan(answer.json["results"][0])
    assert answer.json["results"][1] == -math.inf


def test_a_version_may_be_named(rest):
    path = "/v1/models/examples/versions/7:regress"

    assert rest.call("POST", path, {"examples": [{"x": 80.0}]}).json == {"results": [42.0]}


@pytest.mark.parametrize("verb", ["classify", "regress"])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "JSON Parse error: The document is empty"),
        ({}, "When method is classify, key 'examples' is expected and was not found"),
        ({"instances": [1]}, "When method is classify, key 'examples' is expected and was not found"),
        ({"examples": {"x": 1.0}}, "Expecting 'examples' value to be an list/array"),
        ({"examples": []}, "'examples' value is an empty array"),
        ({"examples": [1.0]}, "Example must be JSON object but got JSON Number"),
        ({"examples": ["a"]}, "Example must be JSON object but got JSON String"),
        ({"examples": [{"x": 1.0}], "context": [1]}, "Example must be JSON object but got JSON Array"),
        ({"examples": [{"x": None}]}, "Feature: x has element with unexpected JSON type: Null"),
        ({"examples": [{"x": [[1.0]]}]}, "Feature: x has element with unexpected JSON type: Array"),
        ({"examples": [{"x": {"y": 1}}]}, "Feature: x has element with unexpected JSON type: Object"),
        ({"examples": [{"x": [1.0, 1]}]}, "Unexpected element type in feature: x expecting type: float"),
        ({"examples": [{"x": [1, 1.0]}]}, "Unexpected element type in feature: x expecting type: int64"),
        ({"examples": [{"x": ["a", 1]}]}, "Unexpected element type in feature: x expecting type: bytes"),
        ({"examples": [{"x": 2**63}]}, "Feature: x has uint64_t element. Only int64_t is supported."),
        ({"examples": [{"x": {"b64": "!"}}]}, "Unable to base64 decode"),
        ({"signature_name": 7, "examples": [{"x": 1.0}]}, "'signature_name' key must be a string value."),
    ],
)
def test_examples_that_cannot_be_read_are_refused(rest, verb, body, message):
    status, received = error(rest, verb, body)

    assert status == 400
    assert message in received


@pytest.mark.parametrize(
    ("verb", "signature", "message"),
    [
        ("classify", "zzz", "No signature was found with the name: zzz"),
        ("regress", "zzz", "No signature was found with the name: zzz"),
        ("classify", "regress_x_to_y", "Expected classification signature outputs to contain at least one of"),
        ("regress", "classify_x_to_y", "No regression outputs found in SignatureDef"),
        ("regress", "classify_both", "Expected one output Tensor."),
        ("classify", "classify_flat", "Expected Tensor shape: [batch_size num_classes] but got [1]"),
        ("regress", "regress_two", "Expected output Tensor shape to be either [batch_size] or [batch_size, 1]"),
    ],
)
def test_a_signature_that_does_not_fit_the_call_is_refused(rest, verb, signature, message):
    status, received = error(rest, verb, {"signature_name": signature, "examples": [{"x": 1.0}]})

    assert status == 400
    assert message in received


def test_a_predict_signature_is_no_classification(rest):
    assert error(rest, "classify", {"examples": [{"x": 1.0}]}, "patients") == (400, "Expected one input Tensor.")


def test_an_unknown_model_is_named_once_the_examples_are_read(rest):
    examples = {"examples": [{"x": 1.0}]}

    assert error(rest, "regress", examples, "foo") == (404, "Servable not found for request: Latest(foo)")


@pytest.mark.parametrize("features", [{"x": "text"}, {"x": {"b64": "YQ=="}}, {"x": True}, {}])
def test_features_of_another_type_fail_in_the_graph(rest, features):
    status, message = error(rest, "regress", {"examples": [features]})

    assert status == 400
    assert "x" in message


# gRPC.


@pytest.fixture(scope="module")
def prediction(server: EmbeddedServer) -> Iterator[prediction_service_pb2_grpc.PredictionServiceStub]:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def example(**features):
    feature = {name: tf.train.Feature(float_list={"value": [value]}) for name, value in features.items()}
    return tf.train.Example(features={"feature": feature})


def filled(request, *examples, signature="", model="examples"):
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    request.input.example_list.examples.extend(examples)
    return request


def refusal(call, request):
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=30)
    return caught.value.code().name, caught.value.details()


def test_grpc_classify_answers_classes_and_the_resolved_model_spec(prediction):
    request = filled(classification_pb2.ClassificationRequest(), example(x=20.0, x2=2.0), signature="classify_both")

    response = prediction.Classify(request, timeout=30)

    (classifications,) = response.result.classifications
    assert [(entry.label, entry.score) for entry in classifications.classes] == [("above", 12.0), ("above", 4.0)]
    assert response.model_spec.name == "examples"
    assert response.model_spec.version.value == 7
    assert response.model_spec.signature_name == "classify_both"


def test_grpc_regress_answers_numbers_and_the_default_signature(prediction):
    request = filled(regression_pb2.RegressionRequest(), example(x=80.0), example(x=1.0))

    response = prediction.Regress(request, timeout=30)

    assert [regression.value for regression in response.result.regressions] == [42.0, 2.5]
    assert response.model_spec.signature_name == "serving_default"


def test_grpc_takes_examples_with_a_context(prediction):
    request = regression_pb2.RegressionRequest()
    request.model_spec.name = "examples"
    request.input.example_list_with_context.context.CopyFrom(example(x=10.0))
    request.input.example_list_with_context.examples.extend([example(), example(x=2.0)])

    assert [entry.value for entry in prediction.Regress(request, timeout=30).result.regressions] == [7.0, 3.0]


@pytest.mark.parametrize("method", ["Classify", "Regress"])
def test_grpc_refuses_requests_without_model_or_examples(prediction, method):
    call = getattr(prediction, method)
    kind = {"Classify": classification_pb2.ClassificationRequest, "Regress": regression_pb2.RegressionRequest}[method]
    signature = {"Classify": "classify_x_to_y", "Regress": "regress_x_to_y"}[method]

    assert refusal(call, kind()) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    assert refusal(call, filled(kind(), model="foo")) == ("NOT_FOUND", "Servable not found for request: Latest(foo)")
    assert refusal(call, filled(kind(), signature=signature)) == ("INVALID_ARGUMENT", "Input is empty.")
    assert refusal(call, filled(kind(), signature="zzz")) == (
        "INVALID_ARGUMENT",
        "No signature was found with the name: zzz",
    )


EXAMPLE = example(x=20.0, x2=2.0)


def tasks(*wanted, examples=(EXAMPLE,)):
    request = inference_pb2.MultiInferenceRequest()
    for model, signature, method in wanted:
        task = request.tasks.add(method_name=method)
        task.model_spec.name = model
        task.model_spec.signature_name = signature
    request.input.example_list.examples.extend(examples)
    return request


def test_multi_inference_answers_its_tasks_in_order(prediction):
    request = tasks(("examples", "regress_x_to_y", REGRESS), ("examples", "classify_both", CLASSIFY))

    first, second = prediction.MultiInference(request, timeout=30).results

    assert [entry.value for entry in first.regression_result.regressions] == [12.0]
    assert first.model_spec.signature_name == "regress_x_to_y"
    assert first.model_spec.version.value == 7
    (classifications,) = second.classification_result.classifications
    assert [(entry.label, entry.score) for entry in classifications.classes] == [("above", 12.0), ("above", 4.0)]


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (tasks(), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (tasks(("", "a", REGRESS)), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (
            tasks(("examples", "regress_x_to_y", REGRESS), ("", "a", REGRESS)),
            "INVALID_ARGUMENT",
            "Found ModelSpec with an empty model name.",
        ),
        (
            tasks(("examples", "regress_x_to_y", REGRESS), ("greeting", "a", REGRESS)),
            "INVALID_ARGUMENT",
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        (
            tasks(("examples", "", REGRESS), ("examples", "serving_default", REGRESS)),
            "INVALID_ARGUMENT",
            "Duplicate evaluation of signature: serving_default",
        ),
        (
            tasks(("examples", "zzz", REGRESS)),
            "INVALID_ARGUMENT",
            "Requested signature not found in model graph: zzz",
        ),
        (
            tasks(("examples", "predict", "tensorflow/serving/predict")),
            "UNIMPLEMENTED",
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        (tasks(("examples", "", REGRESS), examples=()), "INVALID_ARGUMENT", "Input is empty."),
        (tasks(("foo", "", REGRESS)), "NOT_FOUND", "Servable not found for request: Latest(foo)"),
    ],
)
def test_multi_inference_refuses_tasks_that_do_not_belong_together(prediction, request_, code, message):
    assert refusal(prediction.MultiInference, request_) == (code, message)
