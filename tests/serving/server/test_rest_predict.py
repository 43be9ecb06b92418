"""Predict, status and metadata over REST: URLs, JSON, dtypes, binary values, what is refused and how."""

from __future__ import annotations

import base64
import http.client
import math
import urllib.parse

import pytest

from serving.server.app import EmbeddedServer


def predictions(rest, model, instances, **more):
    answer = rest.predict(model, {"instances": instances, **more})
    assert answer.status == 200, answer.text
    return answer.json["predictions"]


def outputs(rest, model, inputs, **more):
    answer = rest.predict(model, {"inputs": inputs, **more})
    assert answer.status == 200, answer.text
    return answer.json["outputs"]


def error(rest, model, body):
    answer = rest.predict(model, body)
    return answer.status, answer.error


# Rows and columns.


def test_rows_of_scalars_answer_row_by_row(rest):
    assert predictions(rest, "half_plus_two", [1.0, 2.0, 5.0]) == [2.5, 3.0, 4.5]


def test_rows_of_lists_keep_their_shape(rest):
    assert predictions(rest, "half_plus_two", [[1.0, 2.0], [3.0, 4.0]]) == [[2.5, 3.0], [3.5, 4.0]]


def test_rows_may_name_the_only_input(rest):
    assert predictions(rest, "half_plus_two", [{"x": [1]}, {"x": [2]}]) == [[2.5], [3.0]]


def test_rows_of_several_inputs_are_objects(rest):
    rows = [{"age": 63, "oldpeak": 2.3, "thal": "fixed"}, {"thal": "normal", "age": 41, "oldpeak": 0}]

    assert predictions(rest, "patients", rows) == ["63|2.3|fixed", "41|0.0|normal"]


def test_columns_answer_with_outputs(rest):
    assert outputs(rest, "half_plus_two", [3.0, 4.0]) == [3.5, 4.0]


def test_columns_may_name_the_only_input(rest):
    assert outputs(rest, "half_plus_two", {"x": [3.0]}) == [3.5]


def test_a_scalar_column_is_a_tensor_without_dimensions(rest):
    assert outputs(rest, "half_plus_two", 3.0) == 3.5


def test_an_empty_column_is_a_tensor_of_no_rows(rest):
    assert outputs(rest, "half_plus_two", []) == []


@pytest.mark.parametrize("shape", ["[-1]", "[-1, 1]"])
def test_columns_of_a_tabular_model_are_accepted_in_both_shapes(rest, shape):
    columns = {"age": [63, 41], "oldpeak": [2.3, 0.0], "thal": ["fixed", "normal"]}
    if shape == "[-1, 1]":
        columns = {name: [[value] for value in values] for name, values in columns.items()}

    assert outputs(rest, "patients", columns) == ["63|2.3|fixed", "41|0.0|normal"]


def test_several_outputs_are_objects_by_row_and_lists_by_column(rest):
    row = {"labels": ["good", "bad"], "probabilities": [0.75, 0.25], "raw_bytes": {"b64": "YQ=="}}

    assert predictions(rest, "greeting", ["a"], signature_name="classify") == [row]
    assert outputs(rest, "greeting", ["a"], signature_name="classify") == {name: [value] for name, value in row.items()}


@pytest.mark.parametrize("signature", ["serving_default", ""])
def test_the_default_signature_may_be_named_left_empty_or_left_out(rest, signature):
    assert outputs(rest, "greeting", ["a"], signature_name=signature) == outputs(rest, "greeting", ["a"])


# Dtypes.


def test_every_dtype_comes_back_as_its_own_kind_of_json(rest):
    columns = {"bool": [True], "double": [1e308], "int32": [-7], "int64": [2**53 + 1], "uint8": [255]}

    assert outputs(rest, "types", columns) == {f"{name}_out": values for name, values in columns.items()}


def test_a_narrow_integer_wraps_as_in_a_tensor_proto(rest):
    columns = {"bool": [True], "double": [0.5], "int32": [0], "int64": [0], "uint8": [300]}

    assert outputs(rest, "types", columns)["uint8_out"] == [44]


@pytest.mark.parametrize("number", ["1", "1.0", "1e0", "-0"])
def test_a_float_input_takes_any_json_number(rest, number):
    answer = rest.predict("half_plus_two", f'{{"inputs": [{number}]}}'.encode())

    assert answer.json["outputs"] == [float(number) / 2 + 2]


def test_an_integer_loses_precision_in_a_float_input(rest):
    assert outputs(rest, "half_plus_two", [1435774380]) == outputs(rest, "half_plus_two", [1435774380.0])


def test_a_float_beyond_float32_is_infinite_and_one_below_is_zero(rest):
    answer = rest.predict("half_plus_two", b'{"inputs": [1e308, -1e308, 2e-308]}')

    assert answer.json["outputs"] == [math.inf, -math.inf, 2.0]


@pytest.mark.parametrize(
    ("column", "text", "kind", "expected"),
    [
        ("int32", "1.0", "Number", "int32"),
        ("int32", "2147483648", "Number", "int32"),
        ("int64", "1.0", "Number", "int64"),
        ("int64", "9223372036854775808", "Number", "int64"),
        ("uint8", '"1"', "String", "uint8"),
        ("bool", "1", "Number", "bool"),
        ("double", "true", "True", "double"),
        ("double", "null", "Null", "double"),
        ("double", "false", "False", "double"),
    ],
)
def test_a_value_of_another_type_is_named_in_the_error(rest, column, text, kind, expected):
    columns = {"bool": "true", "double": "1.5", "int32": "1", "int64": "1", "uint8": "1", column: text}
    body = ", ".join(f'"{name}": [{value}]' for name, value in columns.items())

    status, message = error(rest, "types", f'{{"inputs": {{{body}}}}}'.encode())

    assert (status, message) == (400, f"JSON Value: {text} Type: {kind} is not of expected type: {expected}")


def test_a_number_is_no_string(rest):
    assert error(rest, "greeting", {"inputs": [5]}) == (
        400,
        "JSON Value: 5 Type: Number is not of expected type: string",
    )


def test_a_type_error_in_a_row_says_which_row(rest):
    status, message = error(rest, "half_plus_two", {"instances": [1.0, "x"]})

    assert status == 400
    assert message == (
        "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
        'JSON Value: "x" Type: String is not of expected type: float'
    )


@pytest.mark.parametrize(("signature", "name"), [("complex", "complex64"), ("half", "bfloat16")])
def test_an_output_that_json_cannot_carry_is_refused(rest, signature, name):
    status, message = error(rest, "types", {"signature_name": signature, "inputs": [1.0]})

    assert (status, message) == (400, f"Failed to write JSON value for tensor type: {name}")


# Strings and binary values.


def test_strings_are_sent_as_utf_8(rest):
    assert outputs(rest, "greeting", ["Zoë 🦊"]) == ["hello Zoë 🦊"]


def test_base64_objects_are_decoded(rest):
    assert predictions(rest, "greeting", [{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}]) == ["hello hello", "hello world"]


def test_base64_may_lack_its_padding_and_hold_line_breaks(rest):
    assert outputs(rest, "greeting", [{"b64": "aGVs\nbG8"}]) == ["hello hello"]


def test_a_plain_string_is_never_decoded(rest):
    assert outputs(rest, "greeting", ["aGVsbG8="]) == ["hello aGVsbG8="]


@pytest.mark.parametrize("text", ["a", "!!!!", "aGVsbG8==", "_-8="])
def test_what_is_no_standard_base64_is_refused(rest, text):
    status, message = error(rest, "greeting", {"inputs": [{"b64": text}]})

    assert (status, message) == (400, "Unable to base64 decode")


def test_another_object_is_no_binary_value(rest):
    status, message = error(rest, "greeting", {"inputs": {"text": [{"b65": "aGVsbG8="}]}})

    assert status == 400
    assert "not formatted correctly for base64 data" in message


def test_a_binary_value_is_no_number(rest):
    status, message = error(rest, "half_plus_two", {"inputs": [{"b64": "aGVsbG8="}]})

    assert status == 400
    assert message.endswith("Type: Object is not of expected type: float")


def test_every_byte_survives_the_way_there_and_back(rest):
    content = bytes(range(256))
    encoded = base64.b64encode(content).decode()

    row = outputs(rest, "greeting", [{"b64": encoded}], signature_name="classify")

    assert row["raw_bytes"] == [{"b64": encoded}]


# Numbers in answers.


@pytest.mark.parametrize(
    ("sent", "written"),
    [
        ("2", "3.0"),
        ("-4", "0.0"),
        ("0.2", "2.1"),
        ("17999996", "9e+06"),
        ("18000000", "9000002.0"),
        ("1e20", "5e+19"),
        ("1999994", "999999.0"),
        ("0.66666666", "2.33333325"),
        ("NaN", "NaN"),
        ("Infinity", "Infinity"),
        ("-Infinity", "-Infinity"),
        ("Inf", "Infinity"),
        ("-Inf", "-Infinity"),
        ("-NaN", "NaN"),
    ],
)
def test_floats_are_written_with_as_many_digits_as_they_need(rest, sent, written):
    answer = rest.predict("half_plus_two", f'{{"inputs": {sent}}}'.encode())

    assert answer.text == f'{{\n    "outputs": {written}\n}}'


@pytest.mark.parametrize(("sent", "written"), [("0.1", "0.1"), ("1e-5", "1e-05"), ("0.30000000000000004",) * 2])
def test_doubles_keep_all_their_digits(rest, sent, written):
    body = f'{{"inputs": {{"bool": true, "double": {sent}, "int32": 1, "int64": 1, "uint8": 1}}}}'

    assert f'"double_out": {written}' in rest.predict("types", body.encode()).text


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b'{"inputs": [2], "inputs": [4]}', {"outputs": [3.0]}),
        (b'{"instances": [{"x": 2, "x": 4}, {"x": 6}]}', {"predictions": [3.0, 5.0]}),
        (b'{"instances": [{"x" : [2], "x" :[4]}]}', {"predictions": [[3.0]]}),
        (b'{"x": "\\":", "inputs": [Inf, 2, 1e2]}', {"outputs": [float("inf"), 3.0, 52.0]}),
        (b'{"x": "-NaN \\" Inf", "inputs": {"x": [-Inf, 2]}}', {"outputs": [float("-inf"), 3.0]}),
    ],
)
def test_of_a_repeated_key_the_first_counts(rest, body, answer):
    assert rest.predict("half_plus_two", body).json == answer


# What is refused.


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b" \n", "JSON Parse error: The document is empty. at offset: 2"),
        (b"instances = [1, 2]", "JSON Parse error: Invalid value. at offset: 0"),
        (b'{"instances" [1]}', "JSON Parse error: Missing a colon after a name of object member. at offset: 13"),
        (b'{"inputs": 1e999}', "JSON Parse error: Number too big to be stored in double."),
        (b"[1]", "JSON Value: [1] Is not object"),
        (b'{"inputs": Info}', "JSON Parse error: Invalid value. at offset: 11"),
        (
            b'{"a": "\\ud83d\\ude00 \\ud800", "inputs": 1}',
            "JSON Parse error: The surrogate pair in string is invalid. at offset: 20",
        ),
        (b'{"\xc3\xa9": "\\udc00"}', "JSON Parse error: The surrogate pair in string is invalid. at offset: 8"),
        (b'{"a": "\\ud800\\u0041"}', "JSON Parse error: The surrogate pair in string is invalid. at offset: 7"),
        (b"{}", "Missing 'inputs' or 'instances' key"),
    ],
)
def test_a_body_that_is_no_request_is_refused(rest, body, message):
    assert error(rest, "half_plus_two", body) == (400, message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"signature_name": 100, "inputs": [1]}, "'signature_name' key must be a string value."),
        ({"inputs": [1], "instances": [1]}, "expecting only one of 'inputs' or 'instances' keys to exist"),
        ({"instances": 5}, "Expecting 'instances' to be an list/array"),
        ({"instances": {"x": 1}}, "Expecting 'instances' to be an list/array"),
        ({"instances": []}, "No values in 'instances' array"),
        ({"signature_name": "zzz", "instances": [1]}, 'Serving signature name: "zzz" not found in signature def'),
        ({"instances": [[1, 2], [3, 4], [5, 6, 7]]}, "Expecting tensor size: 2 but got: 3"),
        ({"instances": [[1, 2], [3, 4], [[5, 6]]]}, "Expecting shape [2] but got: [1,2]"),
        ({"instances": [1, [1]]}, "Expecting shape [] but got: [1]"),
        ({"inputs": [[1, 2], [3]]}, "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ({"inputs": [1, [2]]}, "Encountered list at unexpected level: 1 expected < 1"),
        ({"inputs": [[1], 2]}, "found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        ({"instances": [{"x": 1}, [2]]}, "Expecting object but got list at item 1 of input list"),
        ({"instances": [[1], {"x": 2}]}, "Expecting value/list but got object at item 1 of input list"),
        ({"instances": [{"y": 1}]}, "JSON object: does not have named input: y"),
        ({"inputs": {"y": 1}}, "Missing named input: x in 'inputs' object."),
    ],
)
def test_a_request_that_does_not_fit_is_refused(rest, body, message):
    status, received = error(rest, "half_plus_two", body)

    assert status == 400
    assert message in received


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"instances": [1]}, "instances is a plain list, but expecting list of objects as multiple input tensors"),
        ({"inputs": [1]}, "inputs is a plain value/list, but expecting an object as multiple input tensors"),
        ({"instances": [{"age": 1}]}, "keys must be equal to: age,oldpeak,thal"),
        ({"inputs": {"age": [1], "thal": ["x"]}}, "Missing named input: oldpeak in 'inputs' object."),
    ],
)
def test_a_request_that_lacks_inputs_is_refused(rest, body, message):
    status, received = error(rest, "patients", body)

    assert status == 400
    assert message in received


def test_columns_that_no_input_has_are_ignored(rest):
    columns = {"age": [1], "oldpeak": [1], "thal": ["x"], "target": [1]}

    assert outputs(rest, "patients", columns) == ["1|1.0|x"]


def test_what_follows_the_first_document_is_ignored(rest):
    assert rest.predict("half_plus_two", b'\xef\xbb\xbf {"instances": [[1,2],[3,4]]}X').json == {
        "predictions": [[2.5, 3.0], [3.5, 4.0]]
    }


@pytest.mark.parametrize(
    ("depth", "message"),
    [(900, "Lists are nested 900 deep; a tensor has at most 64 dimensions"), (100_000, "JSON Parse error: ")],
)
def test_deep_nesting_is_refused_and_breaks_nothing(rest, depth, message):
    status, received = error(rest, "half_plus_two", b'{"inputs": ' + b"[" * depth + b"1" + b"]" * depth + b"}")

    assert status == 400
    assert received.startswith(message)
    assert outputs(rest, "half_plus_two", [1]) == [2.5]


def test_an_op_that_fails_keeps_its_code_and_message(rest):
    status, message = error(rest, "decoder", {"instances": [{"b64": "aGVsbG8="}]})

    assert status == 400
    assert message.startswith("Unknown image file format.")


def test_errors_are_escaped_json(rest):
    status, message = error(rest, "half_plus_two", {"signature_name": 'a"\nb', "inputs": [1]})

    assert (status, message) == (400, 'Serving signature name: "a"\nb" not found in signature def')


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("foo", 404, "Servable not found for request: Latest(foo)"),
        ("half_plus_two/versions/99", 404, "Servable not found for request: Specific(half_plus_two, 99)"),
        ("half_plus_two/labels/stable", 400, "Unrecognized servable version label: stable"),
    ],
)
def test_a_model_that_is_not_there_is_named(rest, path, status, message):
    assert error(rest, path, {"instances": [1]}) == (status, message)


def test_a_specific_version_answers(rest):
    assert rest.predict("half_plus_two/versions/123", {"instances": [1.0]}).json == {"predictions": [2.5]}


def test_a_body_is_read_before_its_model_is_looked_for(rest):
    assert error(rest, "foo", b"") == (400, "JSON Parse error: The document is empty")


def test_a_body_of_megabytes_is_answered(rest):
    values = [float(number) for number in range(200_000)]

    assert outputs(rest, "half_plus_two", values)[-1] == 199_999 / 2 + 2


@pytest.mark.parametrize(("inputs", "expected"), [("a", "hello a"), ([["a"], ["b"]], [["hello a"], ["hello b"]])])
def test_another_shape_than_the_signature_s_is_left_to_the_graph(rest, inputs, expected):
    assert outputs(rest, "greeting", inputs) == expected


def test_a_shape_that_the_graph_refuses_is_a_400(rest):
    status, message = error(rest, "decoder", {"inputs": {"b64": "aGVsbG8="}})

    assert status == 400
    assert message != ""


def test_an_answer_in_rows_needs_outputs_in_rows(rest):
    status, message = error(rest, "decoder", {"instances": []})
    assert (status, message.endswith("No values in 'instances' array")) == (400, True)

    status, message = error(rest, "types", {"instances": [{"bool": True, "double": 1, "int32": 1, "int64": 1}]})
    assert status == 400
    assert "keys must be equal to: bool,double,int32,int64,uint8" in message


def test_a_batch_of_no_rows_answers_no_predictions(rest):
    assert outputs(rest, "greeting", {"text": []}) == []
    assert outputs(rest, "greeting", [], signature_name="classify") == {
        "labels": [],
        "probabilities": [],
        "raw_bytes": [],
    }


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
