"""The embedded server in a process of its own."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

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
    """Serve a model while the block runs: in this process the server would share the interpreter with its clients.

    Args:
        name: of the model.
        base_path: of its versions.
        batching: how requests are merged; None where each runs alone.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(name, base_path, batching, there))
    process.start()
    there.close()  # so that a server that dies is noticed by whoever waits for it
    try:
        yield here.recv()
    finally:
        here.close()
        process.join()


def _serve(name: str, base_path: str, batching: BatchingParameters | None, connection: Connection) -> None:
    gc.freeze()  # what was imported, as `ingraph serve` does
    options = ServerOptions(rest_port=0, grpc_port=0, batching=batching)
    with EmbeddedServer({name: base_path}, options) as server:
        connection.send(Ports(server.rest_port, server.grpc_port))
        connection.poll(None)  # until the other end is closed
