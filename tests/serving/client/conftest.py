from __future__ import annotations

from collections.abc import Iterator

import pytest

from serving.client.grpc_client import GrpcClient
from serving.client.rest_client import RestClient
from serving.server.embedded_server import EmbeddedServer
from serving.server.server_options import ServerOptions
from tests.serving.server import small_models


@pytest.fixture(scope="session")
def client_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    models = small_models.save_all(tmp_path_factory.mktemp("models"))
    with EmbeddedServer(models, ServerOptions(rest_port=0, grpc_port=0)) as server:
        yield server


@pytest.fixture(params=["rest", "grpc"])
def client(client_server: EmbeddedServer, request: pytest.FixtureRequest) -> Iterator[RestClient | GrpcClient]:
    """Either client: what a test says of `client` holds for both."""
    if request.param == "rest":
        with RestClient(port=client_server.rest_port) as rest:
            yield rest
    else:
        with GrpcClient(port=client_server.grpc_port) as grpc:
            yield grpc
