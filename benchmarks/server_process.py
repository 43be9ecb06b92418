"""The embedded server in a process of its own."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

from benchmarks.spawned_server import spawned_server
from serving.server.batching_parameters import BatchingParameters
from serving.server.embedded_server import EmbeddedServer
from serving.server.server_options import ServerOptions


@dataclass(frozen=True)
class Ports:
    """Where the server listens."""

    rest: int
    grpc: int


@contextmanager
def server_process(name: str, base_path: str, batching: BatchingParameters | None = None) -> Iterator[Ports]:
    """Serve a model while the block runs.

    Args:
        name: of the model.
        base_path: of its versions.
        batching: how requests are merged; None where each runs alone.
    """
    with spawned_server(_serve, name, base_path, batching) as ports:
        yield ports


def _serve(name: str, base_path: str, batching: BatchingParameters | None, connection: Connection) -> None:
    gc.freeze()  # what was imported, as `ingraph serve` does
    options = ServerOptions(rest_port=0, grpc_port=0, batching=batching)
    with EmbeddedServer({name: base_path}, options) as server:
        connection.send(Ports(server.rest_port, server.grpc_port))
        connection.poll(None)  # until the other end is closed
