"""Servers to measure, each in a process of its own."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import tensorflow as tf
import uvloop

from serving.server.app import EmbeddedServer
from serving.server.config import BatchingParameters
from serving.server.options import ServerOptions


@contextmanager
def spawned_server(serve: Callable[..., None], *arguments: object) -> Iterator[Any]:
    """Serve while the block runs: in this process a server would share the interpreter with its clients.

    Args:
        serve: a function of a module, called with the arguments and a Connection; it sends where it listens, which the
            block gets, and ends when the other end of the connection is closed.
        arguments: picklable.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(*arguments, there))
    process.start()
    there.close()  # so that a server that dies is noticed by whoever waits for it
    try:
        yield here.recv()
    finally:
        here.close()
        process.join()


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
    with spawned_server(_serve_model, name, base_path, batching) as ports:
        yield ports


def _serve_model(name: str, base_path: str, batching: BatchingParameters | None, connection: Connection) -> None:
    gc.freeze()  # what was imported, as `ingraph serve` does
    options = ServerOptions(rest_port=0, grpc_port=0, batching=batching)
    with EmbeddedServer({name: base_path}, options) as server:
        connection.send(Ports(server.rest_port, server.grpc_port))
        connection.poll(None)  # until the other end is closed


STOP_SECONDS = 60.0
_READY = re.compile(r"serving .+: REST on http://127\.0\.0\.1:(\d+), gRPC on 127\.0\.0\.1:(\d+)")


@dataclass(frozen=True)
class RunningServer:
    """Where it listens, and what it takes of the machine."""

    pid: int
    rest_port: int
    grpc_port: int

    def memory(self) -> float:
        """What it has in memory now, in MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def open_files(self) -> int:
        """How many files and connections it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))


@contextmanager
def serve_command(name: str, base_path: str, *options: str) -> Iterator[RunningServer]:
    """Serve a model while the block runs, then stop the server by SIGTERM.

    Raises:
        SystemExit: it did not start, or did not end with status 0.
    """
    command = [str(Path(sys.executable).with_name("ingraph")), "serve", "--model", f"{name}={base_path}"]
    command += ["--rest-port", "0", "--grpc-port", "0", "--poll-seconds", "0.2", *options]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            ready = _READY.search(process.stdout.readline())
            if ready is None:
                raise SystemExit(f"the server did not start: {' '.join(command)}")
            yield RunningServer(process.pid, int(ready[1]), int(ready[2]))
            process.send_signal(signal.SIGTERM)
            if process.wait(STOP_SECONDS):
                raise SystemExit(f"the server ended with status {process.returncode}")
        finally:
            process.kill()
            process.wait()


NAME = "sum"
COLUMNS = 13


class Sum(tf.Module):
    """One float input per column, their sum."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name=f"column_{i}") for i in range(COLUMNS)])
    def predict(self, *columns: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"output_0": tf.add_n(columns)}


def write_sum_model(version: str) -> None:
    """Save it to a version directory."""
    tf.get_logger().setLevel("ERROR")
    module = Sum()
    tf.saved_model.save(module, version, signatures={"serving_default": module.predict})


@contextmanager
def bare_grpc_server(answer: bytes) -> Iterator[int]:
    """Answer every call of every method with these bytes while the block runs, which gets the port."""
    with spawned_server(_serve_nothing, answer) as port:
        yield port


def _serve_nothing(answer: bytes, connection: Connection) -> None:
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
