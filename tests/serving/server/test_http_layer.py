"""What HTTP brings along: compression, other sites' pages, time-outs, bodies that are too large or never come."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import gzip
import http.client
import io
import json
import select
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.message import Message
from PIL import Image
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc, regression_pb2

from serving.server import json_responses, options
from serving.server.app import EmbeddedServer
from serving.server.config import BatchingParameters
from serving.server.errors import ServingError
from serving.server.grpc import parsed_bytes
from serving.server.json_requests import document_bytes
from serving.server.json_responses import columns_to_json, rows_to_json
from serving.server.options import ConnectionLimits, MemoryBudget, MemoryLimits, RequestLimits
from tests.serving.server.conftest import QUICK_OPTIONS, Rest
from tests.serving.server.test_versions import wait_until

PATH = "/v1/models/half_plus_two:predict"
FOREVER = 2**40  # the counter takes hours for it
LIMITS = RequestLimits(body_bytes=100_000, tensor_bytes=40_000, rows=1000)


@pytest.fixture(scope="module")
def strict(base_paths: dict[str, str]) -> Iterator[EmbeddedServer]:
    """A server with small limits, a short time-out and CORS."""
    wanted = {name: base_paths[name] for name in ("half_plus_two", "counter", "greeting", "examples")}
    strict = dataclasses.replace(QUICK_OPTIONS, limits=LIMITS, rest_timeout_seconds=0.3, cors=True)
    with EmbeddedServer(wanted, strict) as server:
        yield server


@pytest.fixture
def strict_rest(strict: EmbeddedServer) -> Rest:
    return Rest(strict.rest_port)


# Compression.


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZip", lambda body: gzip.compress(body[:7]) + gzip.compress(body[7:])),
        ("deflate", zlib.compress),
        ("deflate", lambda body: zlib.compress(body, wbits=-15)),
        ("identity", bytes),
    ],
    ids=["gzip", "x-gzip", "gzip in two members", "deflate", "deflate without zlib's header", "identity"],
)
def test_a_compressed_body_is_read(rest, encoding, compress):
    body = compress(b'{"instances": [1.0, 2.0]}')

    assert rest.call("POST", PATH, body, **{"Content-Encoding": encoding}).json == {"predictions": [2.5, 3.0]}


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b'{"instances": [1.0]}'),
        ("gzip", b"\x1f\x8b\x08\x00" + bytes(range(256))),
        ("gzip", gzip.compress(b'{"instances": [1.0]}', mtime=0)[:-1]),
        ("gzip", gzip.compress(b'{"instances": [1.0]}', mtime=0) + b"more"),
        ("deflate", b'{"instances": [1.0]}'),
        ("deflate", zlib.compress(b'{"instances": [1.0]}')[:-1]),
    ],
)
def test_a_body_that_is_not_compressed_as_it_says_is_refused(rest, encoding, body):
    answer = rest.call("POST", PATH, body, **{"Content-Encoding": encoding})

    assert (answer.status, answer.error) == (400, "The request's body is not encoded as its headers say.")


def test_a_body_of_very_many_gzip_members_is_read_in_seconds_and_not_in_hours(rest):
    body = gzip.compress(b"") * 200_000 + gzip.compress(b'{"instances": [1.0]}')  # 4 MB
    assert rest.call("POST", PATH, body, **{"Content-Encoding": "gzip"}).json == {"predictions": [2.5]}


@pytest.mark.parametrize("encoding", ["br", "zstd", "nonsense"])
def test_a_body_in_an_encoding_that_is_not_known_is_parsed_as_it_came(rest, encoding):
    packed = rest.call("POST", PATH, b"\x8b\x07\x80", **{"Content-Encoding": encoding})
    plain = rest.call("POST", PATH, b'{"instances": [1.0]}', **{"Content-Encoding": encoding})

    assert (packed.status, packed.error) == (400, "JSON Parse error: Invalid value. at offset: 0")
    assert plain.json == {"predictions": [2.5]}


def exchange(port, head, body=b""):
    """What a server sends back, byte for byte, until it has closed the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    return received.split(b"\r\n\r\n", 1)


def test_a_long_answer_is_compressed_for_who_takes_gzip(server):
    body = json.dumps({"instances": [1.0] * 1000}).encode()
    head = f"POST {PATH} HTTP/1.1\nHost: x\nConnection: close\nContent-Length: {len(body)}"

    plain_head, plain = exchange(server.rest_port, head, body)
    packed_head, packed = exchange(server.rest_port, f"{head}\nAccept-Encoding: gzip, br", body)

    assert b"Content-Encoding" not in plain_head
    assert b"Content-Encoding: gzip" in packed_head
    assert b"Content-Type: application/json" in packed_head
    assert len(packed) < len(plain) / 10
    assert gzip.decompress(packed) == plain


def test_a_short_answer_is_sent_as_it_is(server):
    body = b'{"instances": [1.0]}'
    head = f"POST {PATH} HTTP/1.1\nHost: x\nConnection: close\nAccept-Encoding: gzip\nContent-Length: {len(body)}"

    received_head, received = exchange(server.rest_port, head, body)

    assert b"Content-Encoding" not in received_head
    assert json.loads(received) == {"predictions": [2.5]}


def test_a_body_in_chunks_is_read(server):
    body = b'5\r\n{"ins\r\nf\r\ntances": [1.0]}\r\n0\r\n\r\n'

    _, received = exchange(
        server.rest_port, f"POST {PATH} HTTP/1.1\nHost: x\nConnection: close\nTransfer-Encoding: chunked", body
    )

    assert json.loads(received) == {"predictions": [2.5]}


# Pages of other sites.


def test_cors_headers_are_on_every_answer_where_they_are_wanted(strict_rest):
    for method, path, body in (
        ("POST", PATH, {"instances": [1]}),
        ("GET", "/v1/models/foo", b""),
        ("GET", "/v1/x", b""),
    ):
        headers = strict_rest.call(method, path, body).headers

        assert headers["Access-Control-Allow-Origin"] == "*"
        assert headers["Access-Control-Allow-Methods"] == "POST, GET"
        assert headers["Access-Control-Allow-Headers"] == "Content-Type"


def test_without_the_option_there_is_no_cors(rest):
    answer = rest.call("POST", PATH, {"instances": [1]}, Origin="http://example.com")

    assert [name for name in answer.headers if name.startswith("Access-Control")] == []


def test_a_preflight_needs_an_origin(strict_rest):
    answer = strict_rest.call("OPTIONS", PATH, Origin="https://example.com")
    assert (answer.status, answer.text) == (200, "")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"

    assert strict_rest.call("OPTIONS", PATH).status == 400


# Time-outs.


def test_a_model_that_takes_too_long_is_a_504_and_the_server_goes_on(strict_rest):
    answer = strict_rest.predict("counter", {"inputs": FOREVER})

    assert (answer.status, answer.error) == (504, "Timed out waiting for notification")
    assert strict_rest.predict("counter", {"inputs": 3}).json == {"outputs": [3]}


def test_requests_that_have_timed_out_leave_their_threads(strict):
    for _ in range(3):
        connections = [http.client.HTTPConnection("127.0.0.1", strict.rest_port, timeout=30) for _ in range(16)]
        for connection in connections:
            connection.request("POST", "/v1/models/counter:predict", json.dumps({"inputs": FOREVER}))
        assert {connection.getresponse().status for connection in connections} == {504}
        for connection in connections:
            connection.close()

    assert Rest(strict.rest_port).predict("counter", {"inputs": 3}).json == {"outputs": [3]}


def test_grpc_keeps_to_the_deadline_of_its_client(server):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "counter"
    request.inputs["n"].CopyFrom(tf.make_tensor_proto(FOREVER, tf.int64))

    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for _ in range(16):  # more than there are threads
            with pytest.raises(grpc.RpcError) as caught:
                stub.Predict(request, timeout=0.1)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        request.inputs["n"].CopyFrom(tf.make_tensor_proto(3, tf.int64))
        assert list(stub.Predict(request, timeout=30).outputs["count"].int64_val) == [3]


def test_a_slow_model_holds_up_nobody_else(server):
    slow = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)
    slow.request("POST", "/v1/models/counter:predict", json.dumps({"inputs": 300_000}))

    answer = Rest(server.rest_port).predict("half_plus_two", {"instances": [1.0]})
    slow.sock.setblocking(False)
    with pytest.raises(BlockingIOError):  # the quick answer was there before the slow one
        slow.sock.recv(1, socket.MSG_PEEK)
    slow.sock.setblocking(True)

    assert answer.json == {"predictions": [2.5]}
    assert json.loads(slow.getresponse().read()) == {"outputs": [300_000]}
    slow.close()


def jpeg_of_many_scans() -> bytes:
    """Some 20 kB that take a decoder half a second."""
    file = io.BytesIO()
    Image.new("L", (1500, 1500), 128).save(file, "JPEG", progressive=True, quality=50)
    image = file.getvalue()
    return image[:-2] + image[image.rindex(b"\xff\xda") : -2] * 250 + image[-2:]


@pytest.mark.parametrize("batching", [None, BatchingParameters(num_batch_threads=2)], ids=["alone", "batches"])
def test_images_that_take_long_leave_other_models_their_threads(base_paths, batching):
    wanted = {name: base_paths[name] for name in ("half_plus_two", "decoder")}
    body = json.dumps({"instances": [{"b64": base64.b64encode(jpeg_of_many_scans()).decode()}]}).encode()
    head = f"POST /v1/models/decoder:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    crowded = dataclasses.replace(QUICK_OPTIONS, batching=batching, metrics_path="/metrics")

    with EmbeddedServer(wanted, crowded) as server, contextlib.ExitStack() as stack:
        address = ("127.0.0.1", server.rest_port)
        slow = [stack.enter_context(socket.create_connection(address, timeout=60)) for _ in range(10)]
        for connection in slow:
            connection.sendall(head + body)
        wait_until(lambda: counted(server, 'ingraph_requests_in_flight{model_name="decoder"') == 10)
        for _ in range(5):
            assert Rest(server.rest_port).predict("half_plus_two", {"instances": [1.0]}).json == {"predictions": [2.5]}
        assert select.select(slow, [], [], 0)[0] == []  # all of them are still being decoded
        sizes = [json.loads(connection.recv(65536).partition(b"\r\n\r\n")[2])["predictions"] for connection in slow]
    assert sizes == [[[1500, 1500, 1]]] * 10


# Limits.


def test_a_body_over_the_limit_is_refused_before_it_is_sent(strict):
    connection = http.client.HTTPConnection("127.0.0.1", strict.rest_port, timeout=30)
    connection.putrequest("POST", PATH)
    connection.putheader("Content-Length", str(10**9))
    connection.endheaders()
    response = connection.getresponse()

    assert response.status == 413
    assert json.loads(response.read()) == {"error": "The request's body is too large; this server takes 100000 bytes."}
    connection.close()


@pytest.mark.parametrize("encoding", ["chunked", "gzip"])
def test_a_body_that_turns_out_too_large_is_refused(strict, encoding):
    if encoding == "gzip":  # 100 MB in 97 kB
        body = gzip.compress(b" " * 10**8)
        head = f"Content-Encoding: gzip\nContent-Length: {len(body)}"
    else:
        body = b"".join(b"8000\r\n" + b" " * 0x8000 + b"\r\n" for _ in range(8)) + b"0\r\n\r\n"
        head = "Transfer-Encoding: chunked"

    received_head, received = exchange(
        strict.rest_port, f"POST {PATH} HTTP/1.1\nHost: x\nConnection: close\n{head}", body
    )

    assert received_head.startswith(b"HTTP/1.1 413 ")
    assert "too large" in json.loads(received)["error"]


def test_too_many_rows_are_refused(strict_rest):
    answer = strict_rest.predict("half_plus_two", {"instances": [1] * 1001})

    assert (answer.status, answer.error) == (429, "Input x has 1001 rows; this server takes 1000 at a time.")
    assert strict_rest.predict("half_plus_two", {"instances": [1] * 1000}).status == 200


def test_too_many_examples_are_refused(strict_rest):
    answer = strict_rest.call("POST", "/v1/models/examples:regress", {"examples": [{"x": 1.0}] * 1001})

    assert (answer.status, answer.error) == (429, "Input inputs has 1001 rows; this server takes 1000 at a time.")


def test_a_tensor_over_the_limit_is_refused(strict_rest):
    answer = strict_rest.predict("half_plus_two", {"inputs": [[1] * 10_001]})

    assert (answer.status, answer.error) == (429, "Input x has 40004 bytes; this server takes 40000.")


def test_grpc_refuses_what_is_over_the_limits(strict):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "half_plus_two"

    def refusal(tensor):
        request.inputs["x"].CopyFrom(tensor)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(request, timeout=30)
        return caught.value.code().name

    with grpc.insecure_channel(f"127.0.0.1:{strict.grpc_port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        assert refusal(tf.make_tensor_proto([1.0] * 1001)) == "RESOURCE_EXHAUSTED"
        assert refusal(tf.make_tensor_proto([[1.0] * 50_000])) == "RESOURCE_EXHAUSTED"
        one_value_for_a_large_shape = tf.make_tensor_proto([1.0])
        one_value_for_a_large_shape.tensor_shape.dim[0].size = 10**9
        assert refusal(one_value_for_a_large_shape) == "INVALID_ARGUMENT"


# Memory.


def peak_mebibytes(work: Callable[[], None]) -> float:
    """By how much this process grows at most while it does this."""

    def status(key: str) -> float:
        return int(Path("/proc/self/status").read_text().split(f"{key}:")[1].split()[0]) / 1024

    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    work()
    return status("VmHWM") - before


@pytest.fixture(scope="module")
def frugal(base_paths: dict[str, str]) -> Iterator[EmbeddedServer]:
    """A server of which one request may take 64 MiB, and all together 256 MiB."""
    wanted = {name: base_paths[name] for name in ("half_plus_two", "greeting", "examples", "counter")}
    memory = MemoryLimits(all_bytes=2**28, request_bytes=2**26)
    frugal = dataclasses.replace(QUICK_OPTIONS, memory=memory, metrics_path="/metrics")
    with EmbeddedServer(wanted, frugal) as server:
        yield server
        wait_until(lambda: counted(server, "ingraph_request_memory_bytes{}") == 0)


def filled(model: str, name: str, tensor: tensor_pb2.TensorProto, *sizes: int) -> predict_pb2.PredictRequest:
    """A request of one value that fills a shape."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.inputs[name].CopyFrom(tensor)
    for size in sizes:
        request.inputs[name].tensor_shape.dim.add(size=size)
    return request


def grpc_code(port: int, request: Message, method: str = "Predict") -> str:
    unlimited = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", unlimited) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        try:
            getattr(stub, method)(request, timeout=30)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


FLOAT, STRING = tf.float32.as_datatype_enum, tf.string.as_datatype_enum


@pytest.mark.parametrize(
    "request_",
    [
        filled("half_plus_two", "x", tensor_pb2.TensorProto(dtype=FLOAT, float_val=[1.0]), 2**28),
        filled("half_plus_two", "x", tensor_pb2.TensorProto(dtype=FLOAT), 2**14, 2**14),
        filled("greeting", "text", tensor_pb2.TensorProto(dtype=STRING, string_val=[b"x" * 100_000]), 100_000),
        filled("greeting", "text", tensor_pb2.TensorProto(dtype=STRING), 10_000_000),
    ],
    ids=["one number", "no number", "one text", "no text"],
)
def test_a_short_message_that_fills_gigabytes_is_refused_before_they_are_there(frugal, request_):
    answers: list[str] = []

    grown = peak_mebibytes(lambda: answers.append(grpc_code(frugal.grpc_port, request_)))

    assert answers == ["RESOURCE_EXHAUSTED"]
    assert grown < 60
    request_.inputs.popitem()
    assert grpc_code(frugal.grpc_port, request_) == "INVALID_ARGUMENT"


def test_a_context_that_is_repeated_for_each_example_is_refused(frugal):
    request = regression_pb2.RegressionRequest()
    request.model_spec.name = "examples"
    listed = request.input.example_list_with_context
    listed.context.features.feature["text"].bytes_list.value.append(b"x" * 100_000)
    for _ in range(2000):
        listed.examples.add()

    grown = peak_mebibytes(lambda: pytest.fail("") if grpc_code(frugal.grpc_port, request, "Regress") == "OK" else None)

    assert grpc_code(frugal.grpc_port, request, "Regress") == "RESOURCE_EXHAUSTED"
    assert grown < 60


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [' + b"1," * 30_000_000 + b"1]}",
        b'{"instances": [' + b"[]," * 1_000_000 + b"1]}",
        b'{"instances": ["' + b" " * 90_000_000 + b'"]}',
        b'{"instances": [NaN, "' + b"\\ud83d\\ude00" * 1_000_000 + b'"]}',
    ],
    ids=["numbers", "lists", "blanks", "surrogates"],
)
def test_a_short_body_that_unpacks_or_parses_to_gigabytes_is_refused(frugal, body):
    packed, answers = gzip.compress(body, 1), []
    rest = Rest(frugal.rest_port)

    grown = peak_mebibytes(lambda: answers.append(rest.call("POST", PATH, packed, **{"Content-Encoding": "gzip"})))

    assert [answer.status for answer in answers] == [429]
    assert "this server gives one request 67108864" in answers[0].error
    assert grown < 100


def test_an_answer_over_the_budget_is_refused(frugal):
    answer = Rest(frugal.rest_port).predict(
        "greeting", {"signature_name": "classify", "instances": ["a" * 100] * 90_000}
    )
    few = Rest(frugal.rest_port).predict("greeting", {"signature_name": "classify", "instances": ["a" * 100] * 90})

    assert (answer.status, answer.json.keys()) == (429, {"error"})
    assert few.status == 200


def test_what_a_reader_leaves_lying_counts_until_it_goes_away(frugal):
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", frugal.rest_port))
        body = json.dumps({"inputs": [0.123456] * 400_000}).encode()
        reader.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: reader.recv(1, socket.MSG_PEEK) != b"")
        assert counted(frugal, "ingraph_request_memory_bytes{}") > 400_000
    wait_until(lambda: counted(frugal, "ingraph_request_memory_bytes{}") == 0)


def test_requests_share_a_budget_of_which_small_ones_keep_a_part():
    budget = MemoryBudget(MemoryLimits(all_bytes=80 * 2**20, request_bytes=60 * 2**20))
    with budget.lease() as first, budget.lease() as second, budget.lease() as small:
        first.grow(40 * 2**20)
        second.grow(30 * 2**20)
        with pytest.raises(ServingError, match="that other requests hold now"):
            second.grow(2**20)
        small.grow(2**20)
        with pytest.raises(ServingError, match="gives one request 62914560"):
            first.grow(30 * 2**20)
        first.shrink(2**20)
        second.grow(25 * 2**20)
        second.retain()  # by a thread
    assert budget.taken == 55 * 2**20
    second.release()
    assert budget.taken == 0


def test_a_request_waits_a_while_for_memory_that_others_hold():
    budget = MemoryBudget(MemoryLimits(all_bytes=2**30, request_bytes=2**30))

    async def wait() -> int:
        with budget.lease() as late:
            asyncio.get_running_loop().call_later(0.05, holder.release)
            await late.take(2**29)
            return budget.taken

    holder = budget.lease()
    holder.grow(2**29)
    assert asyncio.run(wait()) == 2**29
    assert budget.taken == 0


def test_the_parsing_of_a_body_counts_against_the_time_out(base_paths):
    hasty = dataclasses.replace(QUICK_OPTIONS, rest_timeout_seconds=0.05)
    body = b'{"instances": [' + b"0.25," * 4_000_000 + b"1]}"
    with EmbeddedServer({"half_plus_two": base_paths["half_plus_two"]}, hasty) as server:
        answer = Rest(server.rest_port).call("POST", PATH, body)
        assert (answer.status, answer.error) == (504, "Timed out waiting for notification")


def test_64_mebibytes_of_photos_and_of_rows_pass_by_the_defaults(server, rest):
    photos = predict_pb2.PredictRequest()
    photos.model_spec.name = "greeting"
    photos.inputs["text"].CopyFrom(tf.make_tensor_proto([bytes(4 * 2**20)] * 16))
    assert grpc_code(server.grpc_port, photos) == "OK"
    rows = predict_pb2.PredictRequest()
    rows.model_spec.name = "half_plus_two"
    rows.inputs["x"].CopyFrom(tf.make_tensor_proto(np.zeros(2**24, np.float32)))
    assert grpc_code(server.grpc_port, rows) == "OK"
    photo = b'{"b64": "' + b"QUJD" * 2**20 + b'"},'
    body = b'{"instances": [' + 15 * photo + b'"last"]}'
    answer = rest.call("POST", "/v1/models/greeting:predict", body)
    assert (answer.status, len(answer.json.get("predictions", []))) == (200, 16)


def test_the_budget_of_the_defaults_has_room_for_64_mebibytes_of_rows():
    row = b'{"age": 63, "sex": 1, "cp": "typical", "trestbps": 145, "chol": 233, "oldpeak": 2.3, "thal": "fixed"},'
    short = predict_pb2.PredictRequest()
    short.inputs["text"].string_val.extend([b"0123456789"] * (64 * 2**20 // 12))
    message = short.SerializeToString()

    assert 64 * 2**20 + document_bytes(b'{"instances": [' + row * (64 * 2**20 // len(row))) < 3 * 2**29
    assert len(message) + parsed_bytes(message, predict_pb2.PredictRequest.DESCRIPTOR) < 3 * 2**29
    assert MemoryLimits(24 * 2**30).of_one == 3 * 2**30
    assert MemoryLimits(8 * 2**30).of_one == 3 * 2**29
    assert MemoryLimits(2**30).of_one == 2**29


MEASURED = """
import os
import orjson
from tensorflow_serving.apis import classification_pb2, predict_pb2
from serving.server.grpc import parsed_bytes
from serving.server.json_requests import document_bytes
from serving.server.json_responses import columns_to_json, rows_to_json

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def check(name, estimated, work):
    child = os.fork()
    if not child:
        before = resident()
        kept = work()
        os._exit(0 if resident() - before <= estimated + 2**20 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, name

def varint(number):
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)

def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content

def tensor(content):
    return field(2, field(1, b"x") + field(2, content))

N = 50_000
messages = {
    "inputs": b"\\x12\\0" * N,
    "filters": b"\\x1a\\0" * N,
    "texts": tensor(b"\\x42\\2ab" * N),
    "sizes": tensor(field(2, b"\\x12\\0" * N)),
    "resources": tensor(b"\\x72\\0" * N),
    "variants": tensor(b"\\x7a\\0" * N),
    "integers": tensor(field(10, b"\\1" * N)),
    "single floats": tensor(b"\\x2d\\0\\0\\0\\0" * N),
    "unknown": b"\\x98\\6\\1" * N,
}
for name, data in messages.items():
    kind = predict_pb2.PredictRequest
    check(name, parsed_bytes(data, kind.DESCRIPTOR), lambda: kind.FromString(data))
examples = {"examples": field(1, b"\\n\\0" * N), "features": field(1, field(1, field(1, b"\\n\\0" * N)))}
for name, data in examples.items():
    kind = classification_pb2.ClassificationRequest
    check(name, parsed_bytes(field(2, data), kind.DESCRIPTOR), lambda: kind.FromString(field(2, data)))
values = ["1", "1000", "0.5", "[]", "{}", "[1]", '{"a":1}', '"ab"', "null", '{"a":1,"b":2,"c":3}', "[[[]]]"]
values += ['{"b64":"YWJj"}', '"' + "a" * 50 + '\\U0001f600"', '"\\u00e4"']
documents = {value: ",".join([value] * 50_000) for value in values}
documents["keys"] = ",".join('{"%06d":1}' % number for number in range(50_000))
for name, text in documents.items():
    body = f'{{"instances":[{text}]}}'.encode()
    check(name, document_bytes(body), lambda: orjson.loads(body))
"""


def test_answers_written_in_pieces_are_those_written_at_once(monkeypatch):
    random = np.random.default_rng(5)
    outputs = {
        "floats": random.normal(size=(5, 3, 2)).astype(np.float32),
        "numbers": np.arange(5),
        "texts": np.array([[b"a", b"b,"]] * 5, np.object_),
    }
    kinds = [outputs, *({name: array} for name, array in outputs.items()), {"none": np.zeros((0, 3))}]
    kinds += [{"flat": np.arange(7)}, {"one": np.zeros((1, 20)), "other": np.zeros(1)}, {"empty": np.zeros((4, 0))}]
    whole = [bytes(write(kind)) for kind in kinds for write in (rows_to_json, columns_to_json)]
    monkeypatch.setattr(json_responses, "PIECE_VALUES", 3)

    assert [bytes(write(kind)) for kind in kinds for write in (rows_to_json, columns_to_json)] == whole
    written = [row["floats"] for row in json.loads(whole[0])["predictions"]]
    assert np.array(written, np.float32).tolist() == outputs["floats"].tolist()


def test_what_messages_and_documents_take_is_estimated_from_above():
    subprocess.run([sys.executable, "-c", MEASURED.replace("\\\\", "\\")], check=True, timeout=120)


# Bodies that do not come, and answers that nobody reads.


@pytest.fixture(scope="module")
def impatient(base_paths: dict[str, str]) -> Iterator[EmbeddedServer]:
    """A server that waits for nobody, has room for eight connections, and shows metrics."""
    limits = ConnectionLimits(header_seconds=0.3, body_seconds=0.3, idle_seconds=1.0, most=8)
    impatient = dataclasses.replace(QUICK_OPTIONS, connections=limits, metrics_path="/metrics")
    with EmbeddedServer({"half_plus_two": base_paths["half_plus_two"]}, impatient) as server:
        yield server


def test_a_body_that_stops_halfway_is_given_up(impatient):
    head = f"POST {PATH} HTTP/1.1\nHost: x\nContent-Length: 1000"
    received_head, received = exchange(impatient.rest_port, head, b'{"instances": [')

    assert received_head.startswith(b"HTTP/1.1 408 ")
    assert "did not arrive within 0.3 s" in json.loads(received)["error"]


def until_closed(connection: socket.socket) -> bytes:
    """What still comes over a connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


def counted(server: EmbeddedServer, name: str) -> float:
    text = Rest(server.rest_port).call("GET", "/metrics").text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


def test_the_half_of_a_head_is_given_up_counted_and_logged_once(impatient, caplog):
    before = counted(impatient, 'ingraph_connections_closed_total{reason="slow head"}')
    with contextlib.ExitStack() as stack:
        halves = [
            stack.enter_context(socket.create_connection(("127.0.0.1", impatient.rest_port), timeout=10))
            for _ in range(6)
        ]
        for half in halves:
            half.sendall(b"POST /v1/models/half_plus_two:predict HTTP/1.1\r\nHost: x\r\nX-A")
        answers = [until_closed(half) for half in halves]

    assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers)
    assert counted(impatient, 'ingraph_connections_closed_total{reason="slow head"}') == before + 6
    assert caplog.text.count("the head of a request did not arrive within 0.3 s") == 1
    assert Rest(impatient.rest_port).predict("half_plus_two", {"instances": [1.0]}).json == {"predictions": [2.5]}


def test_a_head_that_trickles_in_is_given_up_and_one_in_pieces_is_read(impatient):
    with socket.create_connection(("127.0.0.1", impatient.rest_port), timeout=10) as connection:
        for piece in (b"GET /v1/models/half", b"_plus_two HTTP/1.1\r\nHo", b"st: x\r\n\r\n"):
            connection.sendall(piece)
            time.sleep(0.02)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        started = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() < started + 5:
                connection.sendall(b"G")
                time.sleep(0.05)
        assert time.monotonic() < started + 5


def test_a_connection_without_requests_is_closed_after_a_while(impatient):
    with (
        socket.create_connection(("127.0.0.1", impatient.rest_port), timeout=10) as silent,
        socket.create_connection(("127.0.0.1", impatient.grpc_port), timeout=10) as silent_grpc,
        socket.create_connection(("127.0.0.1", impatient.grpc_port), timeout=10) as half,
    ):
        half.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0" + b"\0\0\5\1\0\0\0\0\1abcde")
        assert until_closed(silent) == b""
        until_closed(silent_grpc)
        until_closed(half)


def test_more_connections_than_there_is_room_for_shut_nobody_out(impatient, caplog):
    refused = 'ingraph_connections_closed_total{reason="too many"}'
    before = counted(impatient, refused)
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", impatient.rest_port), timeout=10))
            connection.sendall(b"GET /v1/mod")
        answer = Rest(impatient.rest_port).predict("half_plus_two", {"instances": [1.0]})
        assert answer.json == {"predictions": [2.5]}
        assert counted(impatient, "ingraph_rest_connections") <= 8
        assert counted(impatient, "ingraph_open_files{}") < counted(impatient, "ingraph_open_files_limit{}")
    assert counted(impatient, refused) >= before + 32
    assert "the REST port has 8 connections, which is the most there may be" in caplog.text


def test_connections_leave_a_reserve_of_descriptors(monkeypatch):
    monkeypatch.setattr(options, "descriptor_limit", lambda: 1024)
    monkeypatch.setattr(options, "open_descriptors", lambda: 96)

    assert ConnectionLimits().most_connections() == (1024 - 96 - 128) // 2
    assert ConnectionLimits(most=7).most_connections() == 7
    monkeypatch.setattr(options, "descriptor_limit", lambda: 128)
    assert ConnectionLimits().most_connections() == 16


def test_a_call_whose_message_does_not_come_is_ended(impatient):
    def no_message() -> Iterator[bytes]:
        time.sleep(5)
        yield b""

    with grpc.insecure_channel(f"127.0.0.1:{impatient.grpc_port}") as channel:
        call = channel.stream_unary("/tensorflow.serving.PredictionService/Predict")
        with pytest.raises(grpc.RpcError) as raised:
            call(no_message(), timeout=30)
        empty = channel.stream_unary("/tensorflow.serving.PredictionService/Predict")
        with pytest.raises(grpc.RpcError) as without:
            empty(iter(()), timeout=30)
    assert raised.value.code().name == "DEADLINE_EXCEEDED"
    assert raised.value.details() == "The request's message did not arrive within 0.3 s."
    assert (without.value.code().name, without.value.details()) == ("INTERNAL", "The call has ended without a message.")


def test_clients_that_leave_in_the_middle_of_a_body_break_nothing(server, rest):
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.rest_port), timeout=30) as connection:
            connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n[1".encode())

    assert rest.predict("half_plus_two", {"instances": [1.0]}).json == {"predictions": [2.5]}


def test_a_slow_reader_holds_up_nobody(server, rest):
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", server.rest_port))
        body = json.dumps({"inputs": [1.0] * 2_000_000}).encode()
        reader.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        time.sleep(0.5)  # the answer of megabytes has begun, and nobody takes it

        assert rest.predict("half_plus_two", {"instances": [1.0]}).json == {"predictions": [2.5]}


@pytest.mark.parametrize(
    "head",
    [
        "GET / HTTP/9.9",
        "POST /v1/models/half_plus_two:predict HTTP/1.1\nHost: x\nContent-Length: -5",
        "POST /v1/models/half_plus_two:predict HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\nzz",
        "\x16\x03\x01",
        "GET /v1/models/" + "x" * 100_000 + " HTTP/1.1\nHost: x",
    ],
    ids=["version", "length", "chunk", "tls", "long"],
)
def test_what_is_no_http_is_a_400_that_tells_nothing_of_the_server(server, rest, head):
    received_head, received = exchange(server.rest_port, head, b"")

    assert received_head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ", b"HTTP/1.1 414 "))
    assert b"Traceback" not in received
    assert b".py" not in received
    assert rest.predict("half_plus_two", {"instances": [1.0]}).json == {"predictions": [2.5]}
