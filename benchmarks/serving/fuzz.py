"""Fuzzing of the embedded server, over REST and gRPC: `make fuzz`.

Requests are made from the grammar of real ones and then bent. Whatever comes, the server must answer in time, with an
answer of the documented form, and never with an error of its own.

    python -m benchmarks.serving.fuzz --seconds 600
"""

from __future__ import annotations

import argparse
import base64
import gzip
import io
import json
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.server.app import EmbeddedServer
from serving.server.options import MemoryLimits, RequestLimits, ServerOptions
from tests.serving.server import small_models

ANSWER_SECONDS = 20.0  # what takes longer hangs
EXAMPLES_PER_ROUND = 500
LIMITS = RequestLimits(body_bytes=10_000_000)
MEMORY = MemoryLimits(all_bytes=2**29, request_bytes=2**26)
OWN_FAULT = "Internal error"

# Names of models, signatures and features that exist, and some that do not.
NAMES = ("half_plus_two", "greeting", "patients", "types", "decoder", "examples", "foo", "")
SIGNATURES = ("", "serving_default", "classify", "complex", "half", "classify_both", "regress_x_to_y", "predict", "zzz")
FEATURES = ("x", "text", "age", "oldpeak", "thal", "bool", "double", "int32", "int64", "uint8", "image_bytes", "inputs")

small_text = st.text(max_size=8)
names = st.sampled_from(NAMES) | small_text
signatures = st.sampled_from(SIGNATURES) | small_text
features = st.sampled_from(FEATURES) | small_text
numbers = st.integers() | st.integers(-(2**70), 2**70) | st.floats() | st.integers(-3, 3) | st.booleans()
base64_values = st.fixed_dictionaries(
    {"b64": st.sampled_from(["", "aGVsbG8=", "aGVsbG8", "!", "=", "_-8="]) | small_text}
)
leaves = st.none() | numbers | small_text | base64_values
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(features, inner, max_size=4), max_leaves=12
)
rows = st.lists(st.dictionaries(features, values, max_size=5), max_size=4)
documents = (
    st.fixed_dictionaries(
        {},
        optional={
            "signature_name": signatures | leaves,
            "instances": st.lists(numbers, max_size=5) | rows | values,
            "inputs": st.dictionaries(features, values, max_size=6) | values,
            "examples": rows | values,
            "context": st.dictionaries(features, leaves, max_size=2) | leaves,
        },
    )
    | values
)


# Requests of which every name fits: model, signature, and its inputs with their numbers in tensorflow.DataType.
TARGETS: tuple[tuple[str, str, dict[str, int]], ...] = (
    ("half_plus_two", "", {"x": 1}),
    ("greeting", "serving_default", {"text": 7}),
    ("greeting", "classify", {"text": 7}),
    ("patients", "", {"age": 9, "oldpeak": 1, "thal": 7}),
    ("types", "", {"bool": 10, "double": 2, "int32": 3, "int64": 9, "uint8": 4}),
    ("types", "complex", {"x": 1}),
    ("types", "half", {"x": 1}),
    ("decoder", "", {"image_bytes": 7}),
    ("examples", "predict", {"inputs": 7}),
)
_PLAIN = {
    1: numbers,
    2: numbers,
    3: st.integers(-(2**33), 2**33),
    4: st.integers(-2, 300),
    7: small_text | base64_values,
}
_PLAIN |= {9: st.integers(-(2**65), 2**65), 10: st.booleans()}


@st.composite
def fitting_requests(draw: st.DrawFn) -> tuple[bytes, bytes, list[bytes], bytes, str]:
    """A request in rows, columns or examples in which every name fits, and mostly every value."""
    model, signature, inputs = draw(st.sampled_from(TARGETS))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))

    def nested(kind: int, sizes: list[int]) -> Any:
        if not sizes:
            return draw(_PLAIN[kind] | leaves if draw(st.integers(0, 9)) == 0 else _PLAIN[kind])
        return [nested(kind, sizes[1:]) for _ in range(sizes[0])]

    form = draw(st.sampled_from(["inputs", "instances", "examples"]))
    if form == "inputs":
        content: Any = {name: nested(kind, shape) for name, kind in inputs.items()}
    elif form == "instances":
        content = [
            {name: nested(kind, shape[1:]) for name, kind in inputs.items()} for _ in range(shape[0] if shape else 1)
        ]
    else:
        model, signature = "examples", draw(st.sampled_from(["", "classify_both", "regress_x2_to_y3"]))
        content = [{"x": draw(st.floats(width=32)), "x2": draw(st.floats(width=32) | leaves)}]
    body = json.dumps({"signature_name": signature, form: content}).encode("utf-8", "surrogatepass")
    verb = draw(st.sampled_from(["classify", "regress"])) if form == "examples" else "predict"
    encoding = draw(st.sampled_from(["plain", "gzip"]))
    return b"POST", f"/v1/models/{model}:{verb}".encode(), [b"Accept-Encoding: gzip"], body, encoding


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """JSON as clients write it, with NaN and lone surrogates, sometimes cut, extended or changed in a byte."""
    body = json.dumps(draw(documents), ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    match draw(st.sampled_from(["whole"] * 6 + ["cut", "extended", "changed", "noise", "deep"])):
        case "cut":
            return body[: draw(st.integers(0, len(body)))]
        case "extended":
            return draw(st.binary(max_size=3)) + body + draw(st.binary(max_size=10))
        case "changed":
            place = draw(st.integers(0, max(len(body) - 1, 0)))
            return body[:place] + draw(st.binary(min_size=1, max_size=2)) + body[place + 1 :]
        case "noise":
            return draw(st.binary(max_size=50))
        case "deep":
            depth = draw(st.integers(1, 3000))
            return b'{"inputs": ' + b"[" * depth + b"1" + b"]" * depth + b"}"
    return body


paths = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["/v1/models/", "/V1/Models/", "/v1/", "/v1/models", "/"]),
    names.map(lambda name: name.replace("\r", "").replace("\n", "").replace(" ", "")),
    st.sampled_from(["", "/versions/1", "/versions/123", "/versions/99999999999999999999", "/versions/x", "/labels/a"]),
    st.sampled_from([":predict", ":classify", ":regress", "/metadata", "", ":PREDICT", "?a=b", "%", "%00", "%ff", "/"]),
).map(lambda path: "".join(path.split()).encode("utf-8", "surrogatepass"))
methods = st.sampled_from([b"POST"] * 6 + [b"GET", b"GET", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH"])
headers = st.lists(
    st.sampled_from(
        [
            b"Accept-Encoding: gzip",
            b"Content-Type: text/plain",
            b"Origin: http://x",
            b"Expect: 100-continue",
            b"X: \xff",
        ]
    ),
    max_size=3,
    unique=True,
)


@st.composite
def growing_requests(draw: st.DrawFn) -> tuple[bytes, bytes, list[bytes], bytes, str]:
    """Requests that are short on the wire: a gzip of a high ratio, or a JPEG of many scans."""
    if draw(st.integers(0, 3)):
        unit = draw(st.sampled_from([b"1,", b"0.5,", b"[],", b"{},", b'"ab",', b" ", b"[", b"null,", b'{"x":1},']))
        model = draw(st.sampled_from([b"half_plus_two", b"greeting"]))
        body = b'{"instances": [' + unit * draw(st.integers(1, 3_000_000)) + b"1]}"
        return b"POST", b"/v1/models/" + model + b":predict", [], body, "gzip"
    image = jpeg_of_scans(draw(st.integers(10, 300)), draw(st.integers(10, 1000)))
    body = json.dumps({"instances": [{"b64": base64.b64encode(image).decode()}]}).encode()
    return b"POST", b"/v1/models/decoder:predict", [], body, "plain"


def jpeg_of_scans(scans: int, size: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again: each some bytes, and the time of a whole image."""
    file = io.BytesIO()
    Image.new("L", (size, size), 128).save(file, "JPEG", progressive=True, quality=50)
    image = file.getvalue()
    return image[:-2] + image[image.rindex(b"\xff\xda") : -2] * scans + image[-2:]


rest_requests = (
    fitting_requests()
    | st.tuples(methods, paths, headers, bodies(), st.sampled_from(["plain", "plain", "gzip", "broken gzip", "half"]))
    | growing_requests()
)


@st.composite
def tensors(draw: st.DrawFn) -> tensor_pb2.TensorProto:
    """TensorProtos whose parts need not belong together."""
    proto = tensor_pb2.TensorProto(dtype=draw(st.sampled_from([1, 1, 2, 3, 4, 7, 9, 10, 14, 19, 20, 21, 0, 101])))
    for size in draw(
        st.lists(st.integers(-2, 4) | st.sampled_from([0, 1, 2**14, 2**22, 2**28, 2**31, 2**62]), max_size=4)
    ):
        proto.tensor_shape.dim.add(size=size)
    proto.tensor_shape.unknown_rank = draw(st.sampled_from([False, False, False, True]))
    proto.float_val.extend(draw(st.lists(st.floats(width=32), max_size=4)))
    proto.int64_val.extend(draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4)))
    proto.int_val.extend(draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4)))
    proto.string_val.extend(draw(st.lists(st.binary(max_size=5), max_size=4)))
    proto.half_val.extend(draw(st.lists(st.integers(-5, 2**17), max_size=4)))
    proto.tensor_content = draw(st.just(b"") | st.binary(max_size=16))
    return proto


def _fill_spec(draw: st.DrawFn, spec: Any) -> None:
    spec.name = draw(names)
    spec.signature_name = draw(signatures)
    match draw(st.sampled_from(["none", "none", "version", "label"])):
        case "version":
            spec.version.value = draw(st.integers(-(2**63), 2**63 - 1) | st.sampled_from([1, 7, 123]))
        case "label":
            spec.version_label = draw(small_text)


@st.composite
def grpc_calls(draw: st.DrawFn) -> tuple[str, Any]:
    """A method and its request."""
    method, kind = draw(
        st.sampled_from(
            [
                ("PredictionService/Predict", predict_pb2.PredictRequest),
                ("PredictionService/Predict", predict_pb2.PredictRequest),
                ("PredictionService/Classify", classification_pb2.ClassificationRequest),
                ("PredictionService/Regress", regression_pb2.RegressionRequest),
                ("PredictionService/MultiInference", inference_pb2.MultiInferenceRequest),
                ("PredictionService/GetModelMetadata", get_model_metadata_pb2.GetModelMetadataRequest),
                ("ModelService/GetModelStatus", get_model_status_pb2.GetModelStatusRequest),
                ("ModelService/HandleReloadConfigRequest", model_management_pb2.ReloadConfigRequest),
            ]
        )
    )
    request = kind()
    if hasattr(request, "model_spec") and draw(st.sampled_from([True] * 5 + [False])):
        _fill_spec(draw, request.model_spec)
    if hasattr(request, "inputs") and draw(st.booleans()):
        model, signature, inputs = draw(st.sampled_from(TARGETS))
        request.model_spec.name, request.model_spec.signature_name = model, signature
        for name, kind in inputs.items():
            request.inputs[name].CopyFrom(draw(tensors()))
            request.inputs[name].dtype = draw(st.sampled_from([kind] * 9 + [7]))
    elif hasattr(request, "inputs"):
        for name in draw(st.lists(features, max_size=3)):
            request.inputs[name].CopyFrom(draw(tensors()))
        request.output_filter.extend(draw(st.lists(st.sampled_from(["y", "output_0", "labels", "zzz"]), max_size=2)))
    if hasattr(request, "input"):
        _fill_input(draw, request.input)
    if hasattr(request, "tasks"):
        for _ in range(draw(st.integers(0, 3))):
            task = request.tasks.add(
                method_name=draw(st.sampled_from(["tensorflow/serving/classify", "tensorflow/serving/regress", ""]))
            )
            _fill_spec(draw, task.model_spec)
    if hasattr(request, "metadata_field"):
        request.metadata_field.extend(draw(st.lists(st.sampled_from(["signature_def", "zzz"]), max_size=2)))
    return method, request


def _fill_input(draw: st.DrawFn, input_: Any) -> None:
    if draw(st.booleans()):
        examples = input_.example_list.examples
    else:
        examples = input_.example_list_with_context.examples
        input_.example_list_with_context.context.features.feature["x2"].float_list.value.append(
            draw(st.floats(width=32))
        )
    for _ in range(draw(st.integers(0, 3))):
        feature = examples.add().features.feature
        feature[draw(features)].float_list.value.extend(draw(st.lists(st.floats(width=32), max_size=2)))
        feature[draw(features)].bytes_list.value.extend(draw(st.lists(st.binary(max_size=3), max_size=2)))


def check_rest(port: int, request: tuple[bytes, bytes, list[bytes], bytes, str]) -> None:
    """Send one request and check the form of its answer."""
    method, path, more, body, encoding = request
    if encoding == "half":  # a head that does not end, and a client that goes away
        with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS) as connection:
            connection.sendall((method + b" " + path + b" HTTP/1.1\r\nHost: x\r\nX: " + body)[: len(body) + 10])
        return
    if encoding != "plain":
        body = gzip.compress(body) if encoding == "gzip" else b"\x1f\x8b" + body
        more = [*more, b"Content-Encoding: gzip"]
    lines = [method + b" " + path + b" HTTP/1.1", b"Host: x", b"Connection: close", *more]
    lines.append(b"Content-Length: %d" % len(body))
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS) as connection:
        connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    received = received.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    head, _, answer = received.partition(b"\r\n\r\n")
    status = int(head.split(b" ")[1])
    assert status in (200, 400, 404, 409, 413, 429, 501), received
    if b"Content-Type: application/json" not in head or method == b"HEAD":
        return
    if b"Content-Encoding: gzip" in head:
        answer = gzip.decompress(answer)
    document = json.loads(answer.decode("utf-8", "surrogateescape"))
    assert (list(document) == ["error"]) == (status != 200), received
    assert OWN_FAULT not in str(document.get("error", ""))


def check_grpc(channel: grpc.Channel, call: tuple[str, Any]) -> None:
    """Send one request and check the code of its answer."""
    method, request = call
    ask: Callable[..., bytes] = channel.unary_unary(f"/tensorflow.serving.{method}")
    try:
        ask(request.SerializeToString(), timeout=ANSWER_SECONDS)
    except grpc.RpcError as error:
        expected = {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED"}
        expected.add("PERMISSION_DENIED")  # a config
        assert error.code().name in expected, (error.code(), error.details())


def fuzz_round(server: EmbeddedServer, number: int, examples: int) -> None:
    """`examples` requests over REST and as many over gRPC, always the same for a number; raises what was wrong."""
    configured = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:

        @seed(number)
        @configured
        @given(rest_requests)
        def over_rest(request: Any) -> None:
            check_rest(server.rest_port, request)

        @seed(number)
        @configured
        @given(grpc_calls())
        def over_grpc(call: Any) -> None:
            check_grpc(channel, call)

        over_rest()
        over_grpc()


def fuzz_server(models: Mapping[str, str]) -> EmbeddedServer:
    """A server of the tests' small models; to be used as a context manager."""
    # The counter takes as long as it is asked to.
    served = {name: path for name, path in models.items() if name != "counter"}
    return EmbeddedServer(served, ServerOptions(rest_port=0, grpc_port=0, limits=LIMITS, memory=MEMORY))


def main() -> None:
    """Fuzz until the time is up or something is wrong."""
    parser = argparse.ArgumentParser(description="Fuzz the embedded server over REST and gRPC.")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (default: 600)")
    parser.add_argument("--seed", type=int, default=0, help="of the first round (default: 0)")
    arguments = parser.parse_args()
    ends = time.monotonic() + arguments.seconds
    number = arguments.seed
    with tempfile.TemporaryDirectory() as root, fuzz_server(small_models.save_all(Path(root))) as server:
        while time.monotonic() < ends:
            fuzz_round(server, number, EXAMPLES_PER_ROUND)
            number += 1
            print(f"{number - arguments.seed} rounds of 2 x {EXAMPLES_PER_ROUND} requests", flush=True)


if __name__ == "__main__":
    main()
