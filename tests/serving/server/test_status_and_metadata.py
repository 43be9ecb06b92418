"""GET: the status of versions, and the signatures of a model."""

from __future__ import annotations

import pytest

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
