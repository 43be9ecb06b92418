"""The gRPC library with nothing behind it: what a request costs before a server has done anything of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import grpc
import uvloop

from benchmarks.spawned_server import spawned_server


@contextmanager
def bare_grpc_server(answer: bytes) -> Iterator[int]:
    """Answer every call of every method with these bytes while the block runs, which gets the port."""
    with spawned_server(_serve, answer) as port:
        yield port


def _serve(answer: bytes, connection: Connection) -> None:
    uvloop.run(_serve_until_closed(answer, connection))


async def _serve_until_closed(answer: bytes, connection: Connection) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([_Always(answer)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    connection.send(port)
    await asyncio.to_thread(connection.poll, None)  # until the other end is closed
    await server.stop(None)


class _Always(grpc.GenericRpcHandler):
    def __init__(self, answer: bytes) -> None:
        async def call(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            return answer

        self._handler = grpc.unary_unary_rpc_method_handler(call)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return self._handler
