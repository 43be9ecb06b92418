"""Load on the embedded server while its model changes: no failed request, no wrong version's answer, no leak.

    python -m benchmarks.serving.load                # 16 clients, 5 minutes
    python -m benchmarks.serving.load --seconds 30
    python -m benchmarks.serving.load --hostile      # and beside them clients that want the server's memory and threads

Half of the clients ask over REST, half over gRPC, each without pause and without retries. Every few seconds a version
is published or withdrawn, in turns, so that the server loads one, moves the requests to it and unloads the other. Each
version adds its own number, half of it from its weights and half from its vocabulary, a file among its assets as
Transform leaves one, so that an answer says where both come from. Ends with status 1 where a request failed, an answer
came from a version that it must not come from, or the server's memory has grown.
"""

from __future__ import annotations

import gzip
import http.client
import json
import os
import random
import select
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import click
import grpc
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from benchmarks.serving.servers import RunningServer, serve_command
from serving import model_store

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


NAME = "addend"
WEIGHTS = 2_000_000  # float32: 8 MB that a version which is not freed would keep
LABELS = 1000
MAXIMUM_ROWS = 4
# What the allocator may keep in the second half of the run; one version that leaks in each swap is far more.
FLAT_MEBIBYTES = 24

BUDGET_MEBIBYTES = 2048
HOSTILE_WAIT_SECONDS = 2.0  # two cores are shared with the clients; without others they wait for less than one

Call = Callable[[Sequence[float]], list[float]]


@dataclass
class LoadResult:
    """What happened; times in seconds, memory in MiB."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {"REST": [], "gRPC": []})
    failures: list[str] = field(default_factory=list)
    wrong_versions: list[str] = field(default_factory=list)
    swaps: int = 0
    memory: list[float] = field(default_factory=list)
    hostile: Counter[str] = field(default_factory=Counter)

    @property
    def longest(self) -> float:
        """The longest that a client has waited for an answer."""
        return max((max(seconds) for seconds in self.seconds.values() if seconds), default=0.0)

    @property
    def memory_growth(self) -> float:
        """The peak of the last quarter of the run over the peak of the second quarter."""
        quarter = len(self.memory) // 4
        return max(self.memory[-quarter:]) - max(self.memory[quarter : 2 * quarter]) if quarter else 0.0


@dataclass
class _Timeline:
    """The version that is to be served, from the beginning; the last one may still be on its way."""

    versions: list[int] = field(default_factory=list)

    def position(self, version: int, earliest: int) -> int | None:
        """Where the version is first to be found from that place on."""
        return next((at for at in range(earliest, len(self.versions)) if self.versions[at] == version), None)


@click.command()
@click.option("--seconds", default=300.0, show_default=True, help="How long the clients ask.")
@click.option("--clients", default=16, show_default=True, help="Half of them over REST, half over gRPC.")
@click.option("--swap-seconds", default=5.0, show_default=True, help="From one change of the version to the next.")
@click.option("--seed", default=0, show_default=True, help="Of what is asked.")
@click.option("--batching/--no-batching", default=True, show_default=True, help="Whether requests are merged.")
@click.option("--hostile", is_flag=True, help="Let others ask for what they should not, too.")
def main(seconds: float, clients: int, swap_seconds: float, seed: int, batching: bool, hostile: bool) -> None:
    """Print the table, and what went wrong."""
    result = run_load(seconds, clients, swap_seconds, seed, batching, hostile)
    _print(result, seconds)
    if hostile:
        memory = max(result.memory) - result.memory[0]
        print(
            f"hostile requests {dict(result.hostile)}; the longest wait {result.longest:.2f} s; "
            f"memory grew by {memory:.0f} MiB"
        )
        wrong = result.longest > HOSTILE_WAIT_SECONDS or memory > BUDGET_MEBIBYTES
    else:
        wrong = result.memory_growth > FLAT_MEBIBYTES
    if result.failures or result.wrong_versions or wrong:
        raise SystemExit(1)


def run_load(
    seconds: float, clients: int, swap_seconds: float, seed: int, batching: bool, hostile: bool = False
) -> LoadResult:
    """Start `ingraph serve`, ask for so many seconds while versions change, and stop it.

    Args:
        seconds: how long.
        clients: half of them over REST.
        swap_seconds: from one change of the version to the next.
        seed: of what is asked.
        batching: whether requests are merged.
        hostile: whether five others ask for too much.
    """
    result, timeline, done = LoadResult(), _Timeline(), threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        base_path = str(Path(folder) / "models" / NAME)
        _publish(base_path, Path(folder), timeline)
        flags = ["--enable-batching"] if batching else []
        flags += ["--memory-budget", f"{BUDGET_MEBIBYTES}MiB", "--max-connections", "200"] if hostile else []
        with serve_command(NAME, base_path, *flags) as server:
            threads = [
                threading.Thread(target=_ask, args=(kind, port, seed + client, timeline, done, result))
                for client in range(clients)
                for kind, port in [(("REST", server.rest_port), ("gRPC", server.grpc_port))[client % 2]]
            ]
            if hostile:
                asks = (_fill, _unpack, _half_heads, _numbers, _half_messages)
                ports = (server.grpc_port, server.rest_port, server.rest_port, server.rest_port, server.grpc_port)
                threads += [
                    threading.Thread(target=_be_hostile, args=(ask, port, done, result))
                    for ask, port in zip(asks, ports, strict=True)
                ]
            for thread in threads:
                thread.start()
            _swap(seconds, swap_seconds, base_path, Path(folder), timeline, server, result)
            done.set()
            for thread in threads:
                thread.join()
    return result


def _swap(
    seconds: float,
    swap_seconds: float,
    base_path: str,
    folder: Path,
    timeline: _Timeline,
    server: RunningServer,
    result: LoadResult,
) -> None:
    end = time.monotonic() + seconds
    next_swap = time.monotonic() + swap_seconds
    while time.monotonic() < end:
        time.sleep(0.25)
        result.memory.append(server.memory())
        if time.monotonic() < next_swap:
            continue
        next_swap += swap_seconds
        result.swaps += 1
        if result.swaps % 2:
            _publish(base_path, folder, timeline)
        else:
            # Known to the clients before the server can know it.
            timeline.versions.append(timeline.versions[-2])
            model_store.withdraw(base_path, reason="load")


def _publish(base_path: str, folder: Path, timeline: _Timeline) -> None:
    number = max(timeline.versions, default=0) + 1
    saved, vocabulary = folder / "saved_model", folder / "labels"
    vocabulary.write_text(f"{number}\n" * LABELS, encoding="utf-8")

    class Addend(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = tf.Variable(tf.fill([WEIGHTS], float(number)))
            lines = tf.lookup.TextFileInitializer(
                str(vocabulary),
                key_dtype=tf.int64,
                key_index=tf.lookup.TextFileIndex.LINE_NUMBER,
                value_dtype=tf.string,
                value_index=tf.lookup.TextFileIndex.WHOLE_LINE,
            )
            self.labels = tf.lookup.StaticHashTable(lines, default_value="no label")

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")], autograph=False)
        def predict(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            labels = self.labels.lookup(tf.cast(x, tf.int64) % LABELS)
            return {"y": x / 2.0 + self.weights[-1] / 2.0 + tf.strings.to_number(labels) / 2.0}

    module = Addend()
    tf.saved_model.save(module, str(saved), signatures={"serving_default": module.predict})
    timeline.versions.append(number)
    published = model_store.publish(
        base_path, str(saved), {"data_fingerprint": str(number), "code_fingerprint": "load"}
    )
    if published.number != number:
        raise SystemExit(f"published as version {published.number}, expected {number}")


def _ask(kind: str, port: int, seed: int, timeline: _Timeline, done: threading.Event, result: LoadResult) -> None:
    chance, seen = random.Random(seed), 0
    connected = _rest(port) if kind == "REST" else _grpc(port)
    with connected as call:
        while not done.is_set():
            inputs = [float(chance.randrange(1000)) for _ in range(chance.randint(1, MAXIMUM_ROWS))]
            # A version has a whole interval to be taken up: what is older than the one before is too old.
            earliest = max(seen, len(timeline.versions) - 2)
            start = time.perf_counter()
            try:
                answers = call(inputs)
            except Exception as error:
                result.failures.append(f"{kind}: {error!r}")
                return
            result.seconds[kind].append(time.perf_counter() - start)
            versions = {answer - given / 2 for given, answer in zip(inputs, answers, strict=True)}
            position = timeline.position(int(versions.pop()), earliest) if len(versions) == 1 else None
            if position is None:
                result.wrong_versions.append(f"{kind}: {inputs} -> {answers}, to be served: {timeline.versions[-3:]}")
            else:
                seen = position


@contextmanager
def _rest(port: int) -> Iterator[Call]:
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def call(inputs: Sequence[float]) -> list[float]:
        connection.request("POST", f"/v1/models/{NAME}:predict", json.dumps({"inputs": inputs}))
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise RuntimeError(f"{response.status} {body!r}")
        outputs: list[float] = json.loads(body)["outputs"]
        return outputs

    yield call
    connection.close()


@contextmanager
def _grpc(port: int) -> Iterator[Call]:
    # A connection for each client, as clients on different machines have.
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        def call(inputs: Sequence[float]) -> list[float]:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = NAME
            request.inputs["x"].CopyFrom(tf.make_tensor_proto(inputs, tf.float32))
            response = stub.Predict(request)
            answers = list(response.outputs["y"].float_val)
            if answers[0] - inputs[0] / 2 != response.model_spec.version.value:
                raise RuntimeError(f"version {response.model_spec.version.value} is named, and answered with {answers}")
            return answers

        yield call


def _be_hostile(ask: Callable[[int], str], port: int, done: threading.Event, result: LoadResult) -> None:
    """Ask again and again; whatever is answered is counted, and no answer at all is a failure."""
    while not done.is_set():
        try:
            result.hostile[f"{ask.__name__.strip('_')}: {ask(port)}"] += 1
        except Exception as error:
            result.failures.append(f"{ask.__name__}: {error!r}")
            return
        done.wait(0.05)


def _fill(port: int) -> str:
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = NAME
        request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0]))
        request.inputs["x"].tensor_shape.dim[0].size = 2**28
        try:
            prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=60)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


@cache
def _packed() -> bytes:
    """Some 240 kB that stand for 240 MB."""
    return gzip.compress(b'{"instances": [' + b"1," * 120_000_000 + b"1]}", 6)


def _unpack(port: int) -> str:
    return _post(port, _packed(), {"Content-Encoding": "gzip"})


def _numbers(port: int) -> str:
    return _post(port, b'{"inputs": [' + b"0.25," * 1_000_000 + b"1]}", {})


def _post(port: int, body: bytes, headers: dict[str, str]) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", f"/v1/models/{NAME}:predict", body, headers)
        response = connection.getresponse()
        response.read()
        return str(response.status)
    finally:
        connection.close()


def _half_heads(port: int) -> str:
    with ExitStack() as stack:
        for _ in range(50):
            half = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            half.sendall(b"POST /v1/models/addend:predict HTTP/1.1\r\nHost: x\r\nX: ")
        time.sleep(0.5)
    return "50"


def _half_messages(port: int) -> str:
    with ExitStack() as stack:
        messages = [stack.enter_context(closing(UnfinishedMessage(port, 2**26))) for _ in range(10)]
        for message in messages:
            message.send(bytes(2**25))
        time.sleep(0.5)
    return "10"


class UnfinishedMessage:
    """A gRPC message that is sent in pieces, in HTTP/2 frames (RFC 9113), which no gRPC library leaves to its caller.

    Args:
        port: of a server on this machine.
        declared: how many bytes the message is said to have.

    Attributes:
        ended: whether the server has ended the call.
    """

    def __init__(self, port: int, declared: int) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._window = {0: 65535, 1: 65535}
        self._initial = 65535
        self._received = b""
        self.ended = False
        head = {
            ":method": "POST",
            ":scheme": "http",
            ":path": "/tensorflow.serving.PredictionService/Predict",
            ":authority": "x",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        fields = b"".join(
            bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in head.items()
        )
        self._connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b"") + _frame(1, 4, 1, fields))
        self.send(b"\0" + declared.to_bytes(4, "big"))

    def send(self, data: bytes) -> None:
        """Some more of it, as fast as the server takes it."""
        left = memoryview(data)
        while left and not self.ended:
            size = max(0, min(len(left), 16384, *self._window.values()))
            if size:
                self._connection.sendall(_frame(0, 0, 1, bytes(left[:size])))
                self._window = {stream: window - size for stream, window in self._window.items()}
                left = left[size:]
            self._read(wait=not size)

    def close(self) -> None:
        """Leave without a word."""
        self._connection.close()

    def _read(self, wait: bool) -> None:
        if not wait and not select.select([self._connection], [], [], 0)[0]:
            return
        arrived = self._connection.recv(65536)
        self._received += arrived
        self.ended |= not arrived
        while len(self._received) >= 9 + (length := int.from_bytes(self._received[:3], "big")):
            kind, flags, stream = self._received[3], self._received[4], int.from_bytes(self._received[5:9], "big")
            payload, self._received = self._received[9 : 9 + length], self._received[9 + length :]
            if kind == 4 and not flags:
                for at in range(0, length, 6):
                    if payload[at : at + 2] == b"\0\4":
                        initial = int.from_bytes(payload[at + 2 : at + 6], "big")
                        self._window[1] += initial - self._initial
                        self._initial = initial
                self._connection.sendall(_frame(4, 1, 0, b""))
            elif kind == 6 and not flags:
                self._connection.sendall(_frame(6, 1, 0, payload))
            elif kind == 8:
                self._window[stream] += int.from_bytes(payload, "big")
            elif kind in (3, 7) or (kind == 1 and flags & 1):
                self.ended = True


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _print(result: LoadResult, seconds: float) -> None:
    console = Console()
    table = Table("", "requests", "per second", "p50 ms", "p99 ms", title=f"{seconds:.0f} s, {result.swaps} swaps")
    for kind, times in result.seconds.items():
        median, tail = np.percentile(times or [0.0], [50, 99])
        table.add_row(kind, str(len(times)), f"{len(times) / seconds:.0f}", f"{median * 1e3:.1f}", f"{tail * 1e3:.1f}")
    console.print(table)
    memory = result.memory
    console.print(
        f"failed requests {len(result.failures)}, answers of a wrong version {len(result.wrong_versions)}, "
        f"memory {memory[0]:.0f} MiB at first, {max(memory):.0f} at most, {memory[-1]:.0f} at last; "
        f"growth {result.memory_growth:.0f} MiB"
    )
    for problem in [*result.failures[:10], *result.wrong_versions[:10]]:
        console.print(problem, markup=False)


if __name__ == "__main__":
    main()
