"""Both clients, asked against a running server."""

from __future__ import annotations

import math
import socket
import threading

import numpy as np
import pytest

from serving.client.errors import CanonicalCode, PredictionError
from serving.client.grpc import GrpcClient
from serving.client.metadata import Signature, TensorDescription, VersionStatus
from serving.client.rest import RestClient


def as_lists(outputs):
    return {name: values.tolist() if isinstance(values, np.ndarray) else values for name, values in outputs.items()}


def test_numbers_are_predicted_by_output_name(client):
    assert as_lists(client.predict("half_plus_two", {"x": [1.0, 2.0, 5.0]})) == {"y": [2.5, 3.0, 4.5]}


def test_arrays_and_scalars_keep_their_shape(client):
    assert as_lists(client.predict("half_plus_two", {"x": np.ones((2, 1))})) == {"y": [[2.5], [2.5]]}
    assert as_lists(client.predict("half_plus_two", {"x": 1})) == {"y": 2.5}


def test_columns_are_sent_in_the_dtype_that_the_model_declares(client):
    answer = client.predict("patients", {"age": [63, 41], "oldpeak": [2, 0], "thal": ["fixed", b"normal"]})

    labels = [label if isinstance(label, str) else label.decode() for label in answer["output_0"]]
    assert labels == ["63|2.0|fixed", "41|0.0|normal"]


def test_another_signature_gives_several_outputs(client):
    answer = as_lists(client.predict("greeting", {"text": ["a", "b"]}, signature="classify"))

    assert sorted(answer) == ["labels", "probabilities", "raw_bytes"]
    assert answer["probabilities"] == [[0.75, 0.25], [0.75, 0.25]]


def test_bytes_arrive_as_they_are(client):
    content = bytes(range(256))

    answer = client.predict("greeting", {"text": [content]}, signature="classify")

    assert list(answer["raw_bytes"]) == [content]


def test_nan_and_infinities_are_carried_both_ways(client):
    answer = as_lists(client.predict("half_plus_two", {"x": [math.nan, math.inf, -math.inf]}))["y"]

    assert math.isnan(answer[0])
    assert answer[1:] == [math.inf, -math.inf]


def test_a_version_may_be_named(client):
    assert as_lists(client.predict("half_plus_two", {"x": [1]}, version=123)) == {"y": [2.5]}


def test_metadata_describes_the_signatures(client):
    metadata = client.metadata("greeting")

    assert (metadata.name, metadata.version) == ("greeting", 1)
    assert sorted(metadata.signatures) == ["classify", "serving_default"]
    assert metadata.signatures["serving_default"] == Signature(
        inputs={"text": TensorDescription("string", (-1,))}, outputs={"output_0": TensorDescription("string", (-1,))}
    )
    assert client.metadata("patients").signatures["serving_default"].inputs == {
        "age": TensorDescription("int64", None),
        "oldpeak": TensorDescription("float", None),
        "thal": TensorDescription("string", None),
    }


def test_status_lists_the_versions(client):
    assert client.status("half_plus_two") == [VersionStatus(123, "AVAILABLE", CanonicalCode.OK, "")]


@pytest.mark.parametrize(
    ("model", "inputs", "code", "message"),
    [
        ("foo", {"x": [1]}, CanonicalCode.NOT_FOUND, "Servable not found for request: Latest(foo)"),
        ("decoder", {"image_bytes": [b"noise"]}, CanonicalCode.INVALID_ARGUMENT, "Unknown image file format"),
        ("patients", {"age": [1], "thal": ["x"]}, CanonicalCode.INVALID_ARGUMENT, "oldpeak"),
    ],
)
def test_a_refusal_carries_the_code_and_the_server_s_message(client, model, inputs, code, message):
    with pytest.raises(PredictionError) as caught:
        client.predict(model, inputs)

    assert caught.value.code is code
    assert message in caught.value.message


def test_an_unknown_signature_is_refused(client):
    with pytest.raises(PredictionError, match="zzz"):
        client.predict("half_plus_two", {"x": [1]}, signature="zzz")


def test_a_client_is_usable_after_a_refusal(client):
    with pytest.raises(PredictionError):
        client.predict("foo", {"x": [1]})

    assert as_lists(client.predict("half_plus_two", {"x": [1]})) == {"y": [2.5]}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([[1.0], [1.0, 2.0]], "regular array of float"),
        (["a"], "is no float"),
        ([None], "is no float"),
    ],
)
def test_grpc_refuses_what_is_no_tensor_of_the_input(client_server, values, reason):
    with GrpcClient(port=client_server.grpc_port) as client, pytest.raises(ValueError, match=reason) as caught:
        client.predict("half_plus_two", {"x": values})

    assert "'x'" in str(caught.value)


@pytest.mark.parametrize("values", [[63.5], [2**63], [1e300]])
def test_grpc_loses_nothing_of_an_integer_silently(client_server, values):
    columns = {"age": values, "oldpeak": [1.0], "thal": ["x"]}

    with GrpcClient(port=client_server.grpc_port) as client, pytest.raises(ValueError, match=r"'age'.*int64"):
        client.predict("patients", columns)


def test_grpc_names_an_input_that_the_signature_does_not_have(client_server):
    with GrpcClient(port=client_server.grpc_port) as client, pytest.raises(PredictionError) as caught:
        client.predict("half_plus_two", {"q": [1]})

    assert caught.value.message == "signature serving_default of half_plus_two has no input q; it has x"


@pytest.mark.parametrize(
    ("signature", "expected"), [("complex", {"z": [1.5 + 1.5j]}), ("half", {"z": [1.5], "w": [1.5]})]
)
def test_grpc_reads_dtypes_that_json_cannot_carry(client_server, signature, expected):
    with GrpcClient(port=client_server.grpc_port) as client:
        assert as_lists(client.predict("types", {"x": [1.5]}, signature=signature)) == expected


def test_grpc_carries_messages_over_four_megabytes(client_server):
    with GrpcClient(port=client_server.grpc_port) as client:
        assert client.predict("half_plus_two", {"x": np.zeros(2_000_000, np.float32)})["y"].sum() == 4_000_000


def test_threads_share_a_grpc_client(client_server):
    answers = {}

    with GrpcClient(port=client_server.grpc_port) as client:

        def ask(number: int) -> None:
            answers[number] = client.predict("half_plus_two", {"x": [number]})["y"].tolist()

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert answers == {number: [number / 2 + 2] for number in range(8)}


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.parametrize("client_class", [RestClient, GrpcClient])
def test_a_server_that_is_not_there_is_named(client_class):
    port = closed_port()

    with client_class(port=port) as client, pytest.raises(PredictionError) as caught:
        client.predict("half_plus_two", {"x": [1]})

    assert caught.value.code is CanonicalCode.UNAVAILABLE
    assert f"127.0.0.1:{port}" in caught.value.message


@pytest.mark.parametrize("client_class", [RestClient, GrpcClient])
def test_a_server_that_never_answers_is_given_up(client_class):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]

        with client_class(port=port, timeout_seconds=0.3) as client, pytest.raises(PredictionError) as caught:
            client.status("half_plus_two")

    assert caught.value.code is CanonicalCode.DEADLINE_EXCEEDED
