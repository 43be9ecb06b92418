"""What HTTP brings along: compression, other sites' pages, time-outs, bodies that are too large or never come."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gzip
import http.client
import json
import socket
import threading
import time
import zlib
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from benchmarks.serving.load import UnfinishedMessage
from benchmarks.serving.servers import RunningServer
from serving.server import options
from serving.server.app import EmbeddedServer
from serving.server.options import ArrivingMessages, ConnectionLimits, MemoryBudget, MemoryLimits, RequestLimits
from tests.serving.server.conftest import QUICK_OPTIONS, Rest

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


def counted(server: EmbeddedServer | RunningServer, name: str) -> float:
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


@pytest.fixture
def small_budget(base_paths: dict[str, str]) -> Iterator[EmbeddedServer]:
    """A server with 32 MiB for requests, of which 16 may be of messages that are still arriving."""
    options = dataclasses.replace(QUICK_OPTIONS, memory=MemoryLimits(all_bytes=2**25))
    with EmbeddedServer({"half_plus_two": base_paths["half_plus_two"]}, options) as server:
        yield server


def test_messages_that_stop_halfway_hold_no_more_than_half_of_the_memory_budget(small_budget, caplog):
    with contextlib.ExitStack() as stack:
        stalled = [
            stack.enter_context(contextlib.closing(UnfinishedMessage(small_budget.grpc_port, 2**23))) for _ in range(6)
        ]
        small = stack.enter_context(contextlib.closing(UnfinishedMessage(small_budget.grpc_port, 2**23)))
        small.send(bytes(2**19))
        for message in stalled:
            message.send(bytes(9 * 2**19))
        # 27.5 of 16 MiB: three have to go, and what the others hold is no reason to give up the small one.
        ends = time.monotonic() + 30
        while sum(message.ended for message in stalled) < 3:
            assert time.monotonic() < ends, caplog.text
            time.sleep(0.05)
            for message in stalled:
                message.send(b"x")
        answers = [Rest(small_budget.rest_port).predict("half_plus_two", {"instances": [1.0]}) for _ in range(5)]
        for message in [*stalled, small]:
            message.send(bytes(1000))

    assert (sum(message.ended for message in stalled), small.ended) == (3, False)
    assert [answer.json for answer in answers] == [{"predictions": [2.5]}] * 5
    assert "16777216 is the most they may" in caplog.text


def test_what_had_come_before_a_message_was_waited_for_counts_unless_it_was_of_one_before():
    arriving = ArrivingMessages(MemoryBudget(MemoryLimits(all_bytes=2**15, request_bytes=2**14)))

    async def given_up(peer: str) -> list[bool]:
        events = [asyncio.Event(), asyncio.Event()]
        for event in events:
            arrival = arriving.start(peer, event.set)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), 0.7)  # it is looked at four times a second
            arriving.end(arrival, 0)
        return [event.is_set() for event in events]

    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        server, address = listener.accept()
        with server:
            client.sendall(bytes(20_000))
            assert len(server.recv(20_000, socket.MSG_WAITALL)) == 20_000
            assert asyncio.run(given_up(f"ipv4:{address[0]}:{address[1]}")) == [True, False]


def test_messages_that_are_whole_do_not_count_as_arriving(small_budget, caplog):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "half_plus_two"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(tf.range(2.0**18)))
    address = f"127.0.0.1:{small_budget.grpc_port}"

    others_are_answered = threading.Event()

    def at_last() -> Iterator[bytes]:
        others_are_answered.wait(30)
        yield request.SerializeToString()

    with grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)]) as channel:
        slow = channel.stream_unary("/tensorflow.serving.PredictionService/Predict").future(at_last(), timeout=60)
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        answers = [stub.Predict(request, timeout=30) for _ in range(24)]  # 24 MiB over the same connection
        time.sleep(0.6)  # it is looked at four times a second
        others_are_answered.set()
        answers.append(predict_pb2.PredictResponse.FromString(slow.result()))

    for answer in answers:
        np.testing.assert_array_equal(tf.make_ndarray(answer.outputs["y"]), np.arange(2**18) / 2 + 2)
    assert "given up" not in caplog.text


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
