"""When the clients ask again: a server that answers as it is told to, and counts."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import pytest
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

from serving.client.connection import RetryPolicy
from serving.client.errors import CanonicalCode, PredictionError
from serving.client.grpc import AsyncGrpcClient, GrpcClient
from serving.client.rest import AsyncRestClient, RestClient

QUICK = RetryPolicy(attempts=3, first_pause_seconds=0.001)


class Script:
    """The codes that the server answers with, one after the other, and how many were asked for."""

    def __init__(self, *codes: CanonicalCode) -> None:
        self._codes = list(codes)
        self.asked = 0

    def next(self) -> CanonicalCode:
        self.asked += 1
        return self._codes[min(self.asked, len(self._codes)) - 1]


Ask = Callable[[Script, RetryPolicy], object]


def ask_rest(script, retry):
    with rest_server(script) as port, RestClient(port=port, retry=retry) as client:
        return client.status("m")


def ask_async_rest(script, retry):
    async def ask(port):
        async with AsyncRestClient(port=port, retry=retry) as client:
            return await client.status("m")

    with rest_server(script) as port:
        return asyncio.run(ask(port))


def ask_grpc(script, retry):
    with grpc_server(script) as port, GrpcClient(port=port, retry=retry) as client:
        return client.status("m")


def ask_async_grpc(script, retry):
    async def ask(port):
        async with AsyncGrpcClient(port=port, retry=retry) as client:
            return await client.status("m")

    with grpc_server(script) as port:
        return asyncio.run(ask(port))


class rest_server:  # noqa: N801
    def __init__(self, script: Script) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                code = script.next()
                body = {"model_version_status": []} if code is CanonicalCode.OK else {"error": code.name}
                self.send_response(code.http_status)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> int:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return int(self._server.server_port)

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class grpc_server:  # noqa: N801
    def __init__(self, script: Script) -> None:
        class Servicer(model_service_pb2_grpc.ModelServiceServicer):
            def GetModelStatus(self, request: object, context: grpc.ServicerContext) -> object:  # noqa: N802
                code = script.next()
                if code is not CanonicalCode.OK:
                    context.abort(grpc.StatusCode[code.name], code.name)
                return get_model_status_pb2.GetModelStatusResponse()

        self._server = grpc.server(ThreadPoolExecutor(2))
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(Servicer(), self._server)
        self._port = self._server.add_insecure_port("127.0.0.1:0")

    def __enter__(self) -> int:
        self._server.start()
        return int(self._port)

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()


@pytest.fixture(params=[ask_rest, ask_async_rest, ask_grpc, ask_async_grpc])
def ask(request: pytest.FixtureRequest) -> Iterator[Ask]:
    yield request.param


def test_a_request_that_finds_the_server_unavailable_is_sent_again(ask):
    script = Script(CanonicalCode.UNAVAILABLE, CanonicalCode.UNAVAILABLE, CanonicalCode.OK)

    assert ask(script, QUICK) == []
    assert script.asked == 3


def test_after_the_last_attempt_the_refusal_is_told(ask):
    script = Script(CanonicalCode.UNAVAILABLE)

    with pytest.raises(PredictionError) as caught:
        ask(script, QUICK)

    assert (caught.value.code, caught.value.message) == (CanonicalCode.UNAVAILABLE, "UNAVAILABLE")
    assert script.asked == 3


@pytest.mark.parametrize(
    "code",
    [
        CanonicalCode.INVALID_ARGUMENT,
        CanonicalCode.NOT_FOUND,
        CanonicalCode.RESOURCE_EXHAUSTED,
        CanonicalCode.DEADLINE_EXCEEDED,
        CanonicalCode.INTERNAL,
    ],
)
def test_every_other_refusal_is_final(ask, code):
    script = Script(code, CanonicalCode.OK)

    with pytest.raises(PredictionError) as caught:
        ask(script, QUICK)

    assert caught.value.code is code
    assert script.asked == 1


def test_one_attempt_is_never_repeated(ask):
    script = Script(CanonicalCode.UNAVAILABLE, CanonicalCode.OK)

    with pytest.raises(PredictionError):
        ask(script, RetryPolicy(attempts=1))

    assert script.asked == 1


def test_pauses_grow_up_to_the_longest(monkeypatch):
    pauses = []
    monkeypatch.setattr("serving.client.connection.time.sleep", pauses.append)

    def refuse():
        raise PredictionError(CanonicalCode.UNAVAILABLE, "busy")

    with pytest.raises(PredictionError):
        RetryPolicy(attempts=6, first_pause_seconds=1.0, longest_pause_seconds=5.0).call(refuse)

    assert len(pauses) == 5
    for pause, longest in zip(pauses, [1, 2, 4, 5, 5], strict=True):
        assert longest / 2 <= pause <= longest


class Gateway(BaseHTTPRequestHandler):
    """Sends clients on from /v1 to /moved, where it answers; /broken claims to be compressed and is not."""

    def do_GET(self) -> None:
        if self.path.startswith("/v1/models/broken"):
            self.answer(200, b"no gzip", {"Content-Encoding": "gzip"})
        elif self.path.startswith("/v1/"):
            self.answer(308, b"", {"Location": f"/moved{self.path}"})
        else:
            self.answer(200, b'{"model_version_status": []}', {})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Gateway)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield int(server.server_port)
    server.shutdown()
    server.server_close()


def status_of(kind: str, port: int, model: str) -> object:
    if kind == "rest":
        with RestClient(port=port, retry=RetryPolicy(attempts=1)) as client:
            return client.status(model)

    async def ask() -> object:
        async with AsyncRestClient(port=port, retry=RetryPolicy(attempts=1)) as client:
            return await client.status(model)

    return asyncio.run(ask())


@pytest.mark.parametrize("kind", ["rest", "async rest"])
def test_a_gateway_that_sends_clients_on_is_followed(kind, gateway):
    assert status_of(kind, gateway, "m") == []


@pytest.mark.parametrize("kind", ["rest", "async rest"])
def test_an_answer_that_is_not_compressed_as_it_says_comes_of_no_model_server(kind, gateway):
    with pytest.raises(PredictionError, match="no server answers at http://127") as caught:
        status_of(kind, gateway, "broken")
    assert caught.value.code is CanonicalCode.UNAVAILABLE
