"""Idle connections to the embedded server by the thousand, and whether it lets go of them: `make idle`.

    python -m benchmarks.serving.idle                # five rounds of 10,000 connections

A quarter of the connections each: REST that never says anything, REST kept open after an answer, gRPC that never says
anything, gRPC kept open after the greeting of HTTP/2. In each round all are opened, requests are asked beside them, and
all are closed. Ends with status 1 where a connection is refused or dropped, a request fails, files stay open, or memory
still grows after the third round.
"""

from __future__ import annotations

import http.client
import json
import os
import resource
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.serving.servers import COLUMNS, NAME, RunningServer, serve_command, write_sum_model
from serving.client.connection import RetryPolicy
from serving.client.grpc import GrpcClient
from serving.client.rest import RestClient

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


REQUESTS = 100  # over REST and over gRPC, in each round
CLOSING_SECONDS = 10.0
SETTLED_ROUNDS = 3  # after so many the allocator has what it wants
FLAT_MEBIBYTES = 24
_OTHER_FILES = 1000  # what this process opens besides, at most
# RFC 9113, 3.4: the client's preface and an empty SETTINGS frame.
_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


@dataclass(frozen=True)
class Round:
    """What was seen while the connections were open, and when they had been closed; memory in MiB."""

    connections: int
    files_open: int
    slowest_ms: float
    memory_open: float
    memory_closed: float
    files_closed: int


@click.command()
@click.option("--connections", default=10_000, show_default=True, help="At a time.")
@click.option("--rounds", default=5, show_default=True, help="How often they are opened and closed.")
def main(connections: int, rounds: int) -> None:
    """Print the table, and what went wrong."""
    found, files_before = run_idle(connections, rounds)
    _print(found)
    troubles = problems(found, files_before)
    for trouble in troubles:
        print(trouble)
    if troubles:
        raise SystemExit(1)


def run_idle(connections: int, rounds: int) -> tuple[list[Round], int]:
    """Start `ingraph serve` and do this to it; returns the rounds, and how many files it had open before.

    Raises:
        SystemExit: this process may not open so many connections, or an answer is wrong.
        OSError, ServingClientError: a connection or a request failed.
    """
    _allow_files(connections + _OTHER_FILES)
    with tempfile.TemporaryDirectory() as folder:
        write_sum_model(f"{folder}/1")
        with serve_command(NAME, folder) as server, _asking(server) as ask:
            ask()
            files_before = server.open_files()
            return [_round(server, connections, ask, files_before) for _ in range(rounds)], files_before


def problems(rounds: Sequence[Round], files_before: int) -> list[str]:
    """What did not hold."""
    found = []
    for number, seen in enumerate(rounds, 1):
        if seen.files_open < files_before + seen.connections:
            found.append(
                f"round {number}: of {seen.connections} connections some were dropped: {seen.files_open} files"
            )
        if seen.files_closed > files_before:
            found.append(f"round {number}: {seen.files_closed} files open after it, {files_before} before the first")
    settled = rounds[SETTLED_ROUNDS - 1 :]
    grown = max((seen.memory_closed for seen in settled), default=0) - settled[0].memory_closed if settled else 0
    if grown > FLAT_MEBIBYTES:
        found.append(f"memory grew by {grown:.0f} MiB after round {SETTLED_ROUNDS}")
    return found


def _allow_files(files: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < files:
        raise SystemExit(f"{files} open files are needed and {hard} are allowed: raise `ulimit -Hn`, or --connections")
    if soft != resource.RLIM_INFINITY and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))  # the server inherits it


@contextmanager
def _asking(server: RunningServer) -> Iterator[Callable[[], float]]:
    """A function that asks over REST and gRPC once each, and returns the longer time, in seconds."""
    row = {f"column_{column}": np.array([float(column)], np.float32) for column in range(COLUMNS)}
    retry = RetryPolicy(attempts=1)
    rest, grpc_client = RestClient(port=server.rest_port, retry=retry), GrpcClient(port=server.grpc_port, retry=retry)
    with rest, grpc_client:

        def ask() -> float:
            seconds = []
            for client in (rest, grpc_client):
                start = time.perf_counter()
                answer = client.predict(NAME, row)["output_0"]
                seconds.append(time.perf_counter() - start)
                if list(answer) != [sum(range(COLUMNS))]:
                    raise SystemExit(f"{type(client).__name__}: answered {answer}, expected {sum(range(COLUMNS))}")
            return max(seconds)

        yield ask


def _round(server: RunningServer, connections: int, ask: Callable[[], float], files_before: int) -> Round:
    openers = (_silent_rest, _answered_rest, _silent_grpc, _greeted_grpc)
    with ExitStack() as stack:
        for number in range(connections):
            stack.enter_context(closing(openers[number % len(openers)](server)))
        slowest = max(ask() for _ in range(REQUESTS))
        memory_open, files_open = server.memory(), server.open_files()
    deadline = time.monotonic() + CLOSING_SECONDS
    while server.open_files() > files_before and time.monotonic() < deadline:
        time.sleep(0.05)
    ask()
    return Round(connections, files_open, slowest * 1e3, memory_open, server.memory(), server.open_files())


def _silent_rest(server: RunningServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.rest_port), timeout=30)


def _answered_rest(server: RunningServer) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
    connection.request("GET", f"/v1/models/{NAME}")
    response = connection.getresponse()
    if json.loads(response.read())["model_version_status"][0]["state"] != "AVAILABLE":
        raise SystemExit(f"{NAME} is not available")
    return connection


def _silent_grpc(server: RunningServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.grpc_port), timeout=30)


def _greeted_grpc(server: RunningServer) -> socket.socket:
    connection = _silent_grpc(server)
    connection.sendall(_HTTP2_GREETING)
    return connection


def _print(rounds: Sequence[Round]) -> None:
    table = Table("round", "connections", "slowest request beside, ms", "MiB while open", "MiB after", "files after")
    for number, seen in enumerate(rounds, 1):
        table.add_row(
            str(number),
            str(seen.connections),
            f"{seen.slowest_ms:.0f}",
            f"{seen.memory_open:.0f}",
            f"{seen.memory_closed:.0f}",
            str(seen.files_closed),
        )
    Console().print(table)


if __name__ == "__main__":
    main()
