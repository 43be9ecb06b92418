"""What a request costs on top of the model: the embedded server against the same session in process.

    python -m benchmarks.serving_overhead

A tiny model (13 numbers in, one out), one client, one row per request. The three ways take turns within one run, so
that whatever else the machine does falls on all of them. Prints the median and the 99th percentile of each and, for
REST and gRPC, what they add to the direct call. The clients are raw (generated stub, http.client): only the server
counts.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import grpc
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.server.embedded_server import EmbeddedServer
from serving.server.server_options import ServerOptions
from serving.session_model import SessionModel

COLUMNS = 13


class Sum(tf.Module):
    """One float input per column, their sum: a model that costs next to nothing."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name=f"column_{i}") for i in range(COLUMNS)])
    def predict(self, *columns: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"output_0": tf.add_n(columns)}


@click.command()
@click.option("--requests", default=2000, show_default=True, help="Of each kind.")
def main(requests: int) -> None:
    """Print the table."""
    tf.get_logger().setLevel("ERROR")
    with tempfile.TemporaryDirectory() as folder:
        version = Path(folder) / "1"
        module = Sum()
        tf.saved_model.save(module, str(version), signatures={"serving_default": module.predict})
        model = SessionModel(str(version))
        with _server(folder) as (rest_port, grpc_port), grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            connection = http.client.HTTPConnection("127.0.0.1", rest_port)
            calls = {"direct": _direct(model), "gRPC": _grpc(channel), "REST": _rest(connection)}
            seconds = _take_turns(calls, requests)
            connection.close()
        model.close()
    _print(seconds)


@contextmanager
def _server(base_path: str) -> Iterator[tuple[int, int]]:
    """A server process, as `ingraph serve` is one: in this process it would share the interpreter with its client."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(base_path, there))
    process.start()
    try:
        yield here.recv()
    finally:
        here.send("stop")
        process.join()


def _serve(base_path: str, connection: Connection) -> None:
    with EmbeddedServer({"sum": base_path}, ServerOptions(rest_port=0, grpc_port=0)) as server:
        connection.send((server.rest_port, server.grpc_port))
        connection.recv()


def _row() -> dict[str, np.ndarray]:
    return {f"column_{i}": np.array([float(i)], np.float32) for i in range(COLUMNS)}


def _direct(model: SessionModel) -> Callable[[], float]:
    row = _row()
    return lambda: float(model.run("serving_default", row)["output_0"][0])


def _grpc(channel: grpc.Channel) -> Callable[[], float]:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "sum"
    for name, values in _row().items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    return lambda: float(stub.Predict(request).outputs["output_0"].float_val[0])


def _rest(connection: http.client.HTTPConnection) -> Callable[[], float]:
    body = json.dumps({"inputs": {name: values.tolist() for name, values in _row().items()}})

    def call() -> float:
        connection.request("POST", "/v1/models/sum:predict", body)
        return float(json.loads(connection.getresponse().read())["outputs"][0])

    return call


def _take_turns(calls: dict[str, Callable[[], float]], requests: int) -> dict[str, np.ndarray]:
    expected = sum(range(COLUMNS))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(requests + requests // 10):
        for name, call in calls.items():
            start = time.perf_counter()
            answer = call()
            took = time.perf_counter() - start
            if answer != expected:
                raise SystemExit(f"{name} answered {answer}, expected {expected}")
            if turn >= requests // 10:  # the first tenth warms up
                seconds[name].append(took)
    return {name: np.array(values) for name, values in seconds.items()}


def _print(seconds: dict[str, np.ndarray]) -> None:
    table = Table("", "p50 ms", "p99 ms", "added at p50, ms", "ratio at p50", title="one row per request, one client")
    direct = float(np.median(seconds["direct"]))
    for name, values in seconds.items():
        median, tail = np.percentile(values, [50, 99])
        cells = [median * 1e3, tail * 1e3, (median - direct) * 1e3, median / direct]
        table.add_row(name, *(f"{cell:.2f}" for cell in cells))
    Console().print(table)


if __name__ == "__main__":
    main()
