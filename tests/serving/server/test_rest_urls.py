"""URLs of the REST port, with status and metadata."""

from __future__ import annotations

import http.client
import urllib.parse

import pytest

from serving.server.app import EmbeddedServer

ROWS = {"instances": [1.0]}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/foo"),
        ("POST", "/v1/foo"),
        ("POST", "/v1/models"),
        ("POST", "/v1/models/foo/metadata"),
        ("GET", "/v1/models/debug/model_name"),
        ("GET", "/v1/models/foo:predict"),
        ("POST", "/v1/models/foo/version/50:predict"),
        ("POST", "/v1/models/foo/label/some_label:regress"),
        ("POST", "/v1/models/foo/versions/HELLO:regress"),
        ("POST", "/v1/models/foo/versions/50/labels/some_label:regress"),
        ("POST", "/v1/models/half_plus_two:PREDICT"),
        ("PUT", "/v1/models/half_plus_two:predict"),
        ("DELETE", "/v1/models/half_plus_two"),
    ],
)
def test_what_is_no_call_is_a_malformed_request(rest, method, path):
    answer = rest.call(method, path, ROWS if method == "POST" else b"")

    assert answer.status == 400
    assert answer.error == f"Malformed request: {method} {path}"
    assert answer.headers["Content-Type"] == "application/json"


def test_there_is_no_list_of_models(rest):
    answer = rest.call("GET", "/v1/models")

    assert (answer.status, answer.error) == (400, "Missing model name in request.")


@pytest.mark.parametrize("number", ["18446744073709551615", "9223372036854775808"])
def test_a_version_beyond_64_bits_is_refused(rest, number):
    answer = rest.call("POST", f"/v1/models/foo/versions/{number}:predict", ROWS)

    assert (answer.status, answer.error) == (400, f"Failed to convert version: {number} to numeric.")


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/statuspage"), ("POST", "/predict")])
def test_outside_of_v1_there_is_nothing(rest, method, path):
    answer = rest.call(method, path)

    assert answer.status == 404
    assert "error" not in answer.text


def test_the_path_is_matched_in_any_case(rest):
    answer = rest.call("POST", "/V1/Models/half_plus_two/Versions/123:predict", ROWS)

    assert answer.json == {"predictions": [2.5]}


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "half_plus_two:predict?x=1", 400, "Malformed request: POST /v1/models/half_plus_two:predict?x=1"),
        ("GET", "half_plus_two?x=1", 404, "Could not find any versions of model half_plus_two?x=1"),
        ("GET", "half_plus_two/metadata?x=1", 400, "Malformed request: GET /v1/models/half_plus_two/metadata?x=1"),
    ],
)
def test_a_query_is_a_part_of_the_path(rest, method, path, status, message):
    answer = rest.call(method, f"/v1/models/{path}", ROWS if method == "POST" else b"")

    assert (answer.status, answer.error) == (status, message)


def test_a_percent_encoded_name_is_decoded(rest):
    answer = rest.call("POST", "/v1/models/half%5Fplus%5ftwo:predict", ROWS)

    assert answer.json == {"predictions": [2.5]}


def test_a_name_that_looks_like_a_path_is_only_an_unknown_name(rest):
    name = urllib.parse.quote("../../etc/passwd", safe="")

    answer = rest.call("POST", f"/v1/models/{name}:predict", ROWS)

    assert (answer.status, answer.error) == (404, "Servable not found for request: Latest(../../etc/passwd)")


def test_any_content_type_is_read(rest):
    answer = rest.call(
        "POST",
        "/v1/models/half_plus_two:predict",
        ROWS,
        **{"Content-Type": "application/x-www-form-urlencoded"},
    )

    assert answer.json == {"predictions": [2.5]}


def test_one_connection_serves_many_requests(server: EmbeddedServer):
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
    local_ports = set()
    for value in (1, 2, 3):
        connection.request("POST", "/v1/models/half_plus_two:predict", f'{{"inputs": {value}}}')
        assert connection.getresponse().read().decode() == f'{{\n    "outputs": {value / 2 + 2}\n}}'
        local_ports.add(connection.sock.getsockname())
    connection.close()

    assert len(local_ports) == 1


TENSOR_OF_ANY_SHAPE = {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [], "unknown_rank": True}}


@pytest.mark.parametrize("path", ["half_plus_two", "half_plus_two/versions/123"])
def test_the_status_of_a_version_is_printed_with_every_field(rest, path):
    answer = rest.call("GET", f"/v1/models/{path}")

    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json == {
        "model_version_status": [
            {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("foo", "Could not find any versions of model foo"),
        ("half_plus_two/versions/99", "Could not find version 99 of model half_plus_two"),
        ("foo/metadata", "Servable not found for request: Latest(foo)"),
        ("half_plus_two/versions/99/metadata", "Servable not found for request: Specific(half_plus_two, 99)"),
    ],
)
def test_what_is_not_there_is_named(rest, path, message):
    answer = rest.call("GET", f"/v1/models/{path}")

    assert (answer.status, answer.error) == (404, message)


def test_metadata_of_an_unknown_label_is_refused(rest):
    answer = rest.call("GET", "/v1/models/half_plus_two/labels/nope/metadata")

    assert (answer.status, answer.error) == (400, "Unrecognized servable version label: nope")


@pytest.mark.parametrize("path", ["half_plus_two/metadata", "half_plus_two/versions/123/metadata"])
def test_metadata_shows_the_signatures_with_every_field(rest, path):
    document = rest.call("GET", f"/v1/models/{path}").json

    assert document["model_spec"] == {"name": "half_plus_two", "signature_name": "", "version": "123"}
    signatures = document["metadata"]["signature_def"]["signature_def"]
    default = signatures["serving_default"]
    assert default["method_name"] == "tensorflow/serving/predict"
    assert default["defaults"] == {}
    assert default["inputs"] == {"x": TENSOR_OF_ANY_SHAPE | {"name": "serving_default_x:0"}}
    assert default["outputs"]["y"]["dtype"] == "DT_FLOAT"


def test_metadata_writes_sizes_as_strings(rest):
    document = rest.call("GET", "/v1/models/greeting/metadata").json

    text = document["metadata"]["signature_def"]["signature_def"]["classify"]["inputs"]["text"]
    assert text["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    assert text["dtype"] == "DT_STRING"
