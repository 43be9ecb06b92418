"""The URL grammar of the REST port."""

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


def test_the_path_is_matched_in_any_case_and_the_query_is_no_part_of_it(rest):
    answer = rest.call("POST", "/V1/Models/half_plus_two/Versions/123:predict?verbose=1", ROWS)

    assert answer.json == {"predictions": [2.5]}


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
