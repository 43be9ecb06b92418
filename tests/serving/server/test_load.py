"""Short forms of `make load`, `make idle` and `make fuzz`, and what requests may take of memory and threads."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import gc
import gzip
import io
import json
import os
import random
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import orjson
import pytest
import requests
import tensorflow as tf
from google.protobuf.message import Message
from PIL import Image
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc, regression_pb2

from benchmarks.serving.fuzz import fuzz_round, fuzz_server
from benchmarks.serving.idle import Round, problems, run_idle
from benchmarks.serving.load import BUDGET_MEBIBYTES, run_load
from benchmarks.serving.servers import RunningServer, spawned_server
from serving.client.tensors import data_type
from serving.loading import free_in_parts
from serving.server import json_requests, json_tensors
from serving.server.app import EmbeddedServer
from serving.server.config import BatchingParameters
from serving.server.errors import ServingError
from serving.server.grpc import parsed_bytes
from serving.server.json_requests import document_bytes, parse_document
from serving.server.json_tensors import columns_to_json, rows_to_json, tensors_from_columns, tensors_from_rows
from serving.server.options import MemoryBudget, MemoryLimits
from tests.serving.server.conftest import QUICK_OPTIONS, Rest
from tests.serving.server.test_http_layer import PATH, counted
from tests.serving.server.test_versions import wait_until


def test_versions_change_under_load_without_a_failed_request_or_a_wrong_answer():
    result = run_load(seconds=8.0, clients=8, swap_seconds=2.0, seed=7, batching=True)

    assert result.failures == []
    assert result.wrong_versions == []
    assert result.swaps >= 3
    assert all(len(seconds) > 8 for seconds in result.seconds.values())


def test_clients_that_want_too_much_fail_no_request_of_the_others():
    result = run_load(seconds=4.0, clients=4, swap_seconds=2.0, seed=7, batching=False, hostile=True)

    assert result.failures == []
    assert result.wrong_versions == []
    assert (
        result.hostile["fill: RESOURCE_EXHAUSTED"]
        and result.hostile["unpack: 429"]
        and result.hostile["half_heads: 50"]
        and result.hostile["half_messages: 10"]
    )
    asked = {answer.partition(":")[0] for answer in result.hostile}
    assert asked == {"fill", "unpack", "half_heads", "numbers", "half_messages"}
    assert max(result.memory) - result.memory[0] < BUDGET_MEBIBYTES


def test_idle_connections_by_the_thousand_leave_room_for_requests_and_are_let_go_of():
    rounds, files_before = run_idle(connections=4000, rounds=1)

    assert rounds[0].files_open >= files_before + 4000
    assert problems(rounds, files_before) == []


def test_dropped_connections_files_left_open_and_growing_memory_are_told():
    def seen(files_open: int = 123, files_closed: int = 23, memory: float = 800) -> Round:
        return Round(100, files_open, 1.0, memory, memory, files_closed)

    assert problems([seen(memory=900), seen(), seen(), seen(memory=824)], 23) == []
    assert problems([seen(memory=700), seen(files_open=99), seen(files_closed=24), seen(memory=825)], 23) == [
        "round 2: of 100 connections some were dropped: 99 files",
        "round 3: 24 files open after it, 23 before the first",
        "memory grew by 25 MiB after round 3",
    ]


def test_the_server_answers_whatever_comes_in_the_documented_form(base_paths):
    with fuzz_server(base_paths) as server:
        fuzz_round(server, number=1, examples=250)

        answer = requests.get(f"http://127.0.0.1:{server.rest_port}/v1/models/half_plus_two", timeout=30)
        assert answer.json()["model_version_status"][0]["state"] == "AVAILABLE"


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


# Memory.


def peak_mebibytes(server: RunningServer, work: Callable[[], None]) -> float:
    """By how much a server's process grows at most while something is done."""
    process = Path(f"/proc/{server.pid}")

    def status(key: str) -> float:
        return int((process / "status").read_text().split(f"{key}:")[1].split()[0]) / 1024

    (process / "clear_refs").write_text("5")
    before = status("VmRSS")
    work()
    return status("VmHWM") - before


def serve_frugally(base_paths: dict[str, str], connection: Connection) -> None:
    memory = MemoryLimits(all_bytes=2**28, request_bytes=2**26)
    options = dataclasses.replace(QUICK_OPTIONS, memory=memory, metrics_path="/metrics")
    with EmbeddedServer(base_paths, options) as server:
        connection.send(RunningServer(os.getpid(), server.rest_port, server.grpc_port))
        connection.poll(None)  # until the other end is closed


@pytest.fixture(scope="module")
def frugal(base_paths: dict[str, str]) -> Iterator[RunningServer]:
    """A server of which one request may take 64 MiB, and all together 256 MiB; its memory is its own."""
    wanted = {name: base_paths[name] for name in ("half_plus_two", "greeting", "examples", "counter")}
    with spawned_server(serve_frugally, wanted) as server:
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
        # A model that maps over rows makes as many tensors of nothing.
        filled("greeting", "text", tensor_pb2.TensorProto(dtype=STRING), 2**28, 0, 0),
    ],
    ids=["one number", "no number", "one text", "no text", "rows of nothing"],
)
def test_a_short_message_that_fills_gigabytes_is_refused_before_they_are_there(frugal, request_):
    answers: list[str] = []

    grown = peak_mebibytes(frugal, lambda: answers.append(grpc_code(frugal.grpc_port, request_)))

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

    grown = peak_mebibytes(
        frugal, lambda: pytest.fail("") if grpc_code(frugal.grpc_port, request, "Regress") == "OK" else None
    )

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

    grown = peak_mebibytes(
        frugal, lambda: answers.append(rest.call("POST", PATH, packed, **{"Content-Encoding": "gzip"}))
    )

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
from serving.server.json_tensors import columns_to_json, rows_to_json

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
    monkeypatch.setattr(json_tensors, "PIECE_VALUES", 3)

    assert [bytes(write(kind)) for kind in kinds for write in (rows_to_json, columns_to_json)] == whole
    written = [row["floats"] for row in json.loads(whole[0])["predictions"]]
    assert np.array(written, np.float32).tolist() == outputs["floats"].tolist()


def test_what_messages_and_documents_take_is_estimated_from_above():
    subprocess.run([sys.executable, "-c", MEASURED.replace("\\\\", "\\")], check=True, timeout=120)


# Large bodies in parts.

TEXTS = [*"a[]{}ä😀", "b,", "\\n", '\\"', "\\\\", "\\u00e4", "\\ud83d\\ude00", '\\":', '\\" :', "\\/"]
DAMAGES = b', ] } [ " \\ : NaN -Inf [, ,] {} \0 \xff \xef\xbb\xbf'.split(b" ")


def json_text(draw: random.Random) -> str:
    halves = ["\\ud83d", "\\udc00"] if draw.random() < 0.02 else []  # of a pair
    return '"' + "".join(draw.choices(TEXTS + halves, k=draw.choice([0, 1, 2, 5, 30]))) + '"'


def json_value(draw: random.Random, depth: int) -> str:
    kind = draw.random() if depth else 0.0
    comma = draw.choice([",", ",", " , ", ",\n  "])
    if kind < 0.45:
        number = draw.choice([str(draw.randrange(-9, 10 ** draw.randrange(1, 22))), repr(draw.uniform(-1, 1) ** 9)])
        return draw.choice([number, number, json_text(draw), json_text(draw), "true", "null", "1E400"[: 4 + depth]])
    if kind < 0.8:
        return "[" + comma.join(json_value(draw, depth - 1) for _ in range(draw.randrange(6))) + "]"
    keys = [draw.choice([json_text(draw), f'"{draw.randrange(10 ** draw.choice([1, 6, 6]))}"']) for _ in range(4)]
    colon = draw.choice([":", ":", " : "])
    return "{ " + comma.join(key + colon + json_value(draw, depth - 1) for key in keys[draw.randrange(5) :]) + "\n}"


def random_body(draw: random.Random) -> bytes:
    body = json_value(draw, draw.randrange(7))
    if draw.random() < 0.7:
        body = f'{{"instances":{body},"signature_name":{json_text(draw)}}}'
    encoded = bytearray(body.encode())
    if draw.random() < 0.4:
        at = draw.randrange(len(encoded))
        encoded[at : at + draw.choice([0, 0, 1, 3])] = draw.choice([b"", *DAMAGES])
    return bytes(encoded) + draw.choice([b"", b"", b"", b" ", b"x", b",1", b",{}"])


def told(function: Callable[..., Any], *arguments: Any) -> str:
    """The result and all types in it, or the code and the message."""
    try:
        result = function(*arguments)
    except ServingError as error:
        return f"{error.code.name}: {error.message}"
    if isinstance(result, dict) and result and all(isinstance(value, np.ndarray) for value in result.values()):
        return repr([(name, value.dtype, value.shape, value.tolist()) for name, value in result.items()])
    return repr(result)


@pytest.mark.parametrize("part_bytes", [1, 9, 30, 100])
def test_a_body_in_parts_is_read_as_in_one_piece_valid_or_damaged(monkeypatch, part_bytes):
    draw = random.Random(part_bytes)
    bodies = [body for body in (random_body(draw) for _ in range(1500)) if body]
    whole = [told(parse_document, body) for body in bodies]
    valid = [not reading.startswith("INVALID_ARGUMENT") for reading in whole]
    lenient, parse = [], json_requests._parse_leniently
    monkeypatch.setattr(json_requests, "IN_PARTS_FROM_BYTES", 0)
    monkeypatch.setattr(json_requests, "PART_BYTES", part_bytes)
    monkeypatch.setattr(json_requests, "_parse_leniently", lambda body: lenient.append(body) or parse(body))

    assert [told(parse_document, body) for body in bodies] == whole
    assert 400 < sum(valid) < 1300
    assert len(lenient) < 1300  # what is JSON without a key that comes twice is read by its parts


ROW = b'{"age": 63.5, "name": "a, \\"b\\" [", "photo": {"b64": "QUJD"}, "list": [[1, 2], [3, 4]]}'
LARGE = {
    "numbers": b'{"instances": [' + b"0.25, 1," * 500_000 + b"1]}",
    "rows": b'{"instances": [' + (ROW + b",\n") * 40_000 + ROW + b"]}",
    "one row": b'{"instances": [{"x": [[' + b"1," * 1_500_000 + b"1]]}]}",
    "columns": b'{"inputs": {"x": [' + b"[1.5]," * 150_000 + b'[1]], "y": [' + b'"ab",' * 300_000 + b'"a"]}}',
    "photo": b'{"instances": [{"b64": "' + b"QUJD" * 700_000 + b'"}]}',
    "escapes": b'{"instances": ["' + b'\\"\\u00e4\\ud83d\\ude00\\\\' * 150_000 + b'"]}',
    "no ASCII": b'{"instances": ["' + "ä😀, ".encode() * 350_000 + b'"]}',
    "blanks": b'{"instances": [' + b" " * 2_000_000 + b"1" + b"\n" * 2_000_000 + b"]}",
    "keys": b'{"instances": [{' + b",".join(b'"%06d": 1' % number for number in range(250_000)) + b"}]}",
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_large_body_is_parsed_in_parts_that_hold_nobody_up(monkeypatch, kind):
    parts: list[int] = []
    parse = orjson.loads

    def loads(text: bytes) -> Any:
        parts.append(len(text))
        return parse(text)

    monkeypatch.setattr(json_requests.orjson, "loads", loads)
    expected = json.loads(LARGE[kind])

    assert parse_document(LARGE[kind]) == expected
    assert len(parts) >= len(LARGE[kind]) // json_requests.PART_BYTES - (kind == "blanks") * 100
    assert max(parts) < json_requests.PART_BYTES + 200 or kind == "blanks"


FLOAT_INPUT, TEXT_INPUT, SMALL_INPUT = data_type(FLOAT), data_type(STRING), data_type(tf.int8.as_datatype_enum)


@pytest.mark.parametrize("part_values", [1, 4, 7])
def test_values_in_parts_become_the_tensors_that_they_become_at_once(monkeypatch, part_values):
    draw = random.Random(part_values)
    texts = ["ä😀b" * 3, "QUJDREVG" * 2, {"b64": "QUJDREVG" * 3}, {"b64": "QUJD REVG\nQQ"}, {"b64": "QQ==QUJDQUJD"}]
    texts += [{"b64": "QUJDQUJD===="}, {"b64": "QUJDQUJDQQ"}, {"b64": "QUJDQUJDQ==="}, "a\ud800" * 9]
    leaves = [1, 2.5, -3, True, None, 300, 2**40, *texts]

    def nested(depth: int, size: int, choices: list[Any]) -> Any:
        if not depth:
            return draw.choice(choices)
        sizes = [size] * 3 if draw.random() < 0.95 else [size, 0, 1]
        return [nested(depth - 1, draw.choice(sizes), choices) for _ in range(size)]

    values = []
    for _ in range(300):
        kinds = draw.choice([[1, 2.5], [1, -3, 300], texts[:2], texts[:4], texts, leaves])
        values.append(nested(draw.randrange(1, 5), draw.randrange(1, 5), kinds))
    calls = [
        (function, value, {"x": kind}, *([{}] if function is tensors_from_rows else []))
        for value in values
        for kind in (FLOAT_INPUT, TEXT_INPUT, SMALL_INPUT)
        for function in (tensors_from_rows, tensors_from_columns)
    ]
    at_once = [told(*call) for call in calls]
    monkeypatch.setattr(json_tensors, "PART_VALUES", part_values)
    monkeypatch.setattr(json_tensors, "LONG_STRING", 4)

    assert [told(*call) for call in calls] == at_once
    assert 300 < sum("dtype" in reading for reading in at_once) < len(calls) - 300


def test_a_large_document_is_freed_wherever_it_holds_much():
    shared = [[1.5] * 50_000, {"a": [{}, [[2]]], "b": {str(key): [key] for key in range(5000)}}]
    document = {"instances": [[[shared[0]] * 3, 1], *([[1, {"x": [[]]}]] * 5000), shared[1]], "n": 1}
    free_in_parts(document)
    assert document == {}
    assert (len(shared[0]), len(shared[1])) == (0, 0)


def test_a_model_that_is_not_there_frees_a_large_document_and_answers(rest):
    body = b'{"instances": [' + b"[1.5]," * 300_000 + b"[1]]}"
    assert rest.call("POST", "/v1/models/nobody:predict", body).status == 404
    assert rest.call("POST", PATH, body).status == 200
    assert gc.isenabled()
