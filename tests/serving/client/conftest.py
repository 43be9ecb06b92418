from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from serving.client.grpc import AsyncGrpcClient, GrpcClient
from serving.client.rest import AsyncRestClient, RestClient
from serving.server.app import EmbeddedServer
from serving.server.options import ServerOptions
from tests.serving.server import small_models


@pytest.fixture(scope="session")
def client_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    models = small_models.save_all(tmp_path_factory.mktemp("models"))
    with EmbeddedServer(models, ServerOptions(rest_port=0, grpc_port=0)) as server:
        yield server


class Blocking:
    """A client of coroutines with the methods of the ones without."""

    def __init__(self, client: AsyncRestClient | AsyncGrpcClient, loop: asyncio.AbstractEventLoop) -> None:
        self._client = client
        self._loop = loop

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        return lambda *arguments, **more: self._loop.run_until_complete(method(*arguments, **more))


@pytest.fixture(params=["rest", "grpc", "async rest", "async grpc"])
def client(client_server: EmbeddedServer, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Every client: what a test says of `client` holds for all of them."""
    match request.param:
        case "rest":
            with RestClient(port=client_server.rest_port) as rest:
                yield rest
        case "grpc":
            with GrpcClient(port=client_server.grpc_port) as grpc:
                yield grpc
        case _:
            with asyncio.Runner() as runner:
                made = (
                    AsyncRestClient(port=client_server.rest_port)
                    if request.param == "async rest"
                    else AsyncGrpcClient(port=client_server.grpc_port)
                )
                yield Blocking(made, runner.get_loop())
                runner.run(made.close())
