"""Overhead of a request over the model: the embedded server against the same session in process.

    python -m benchmarks.serving.overhead [--requests 2000]

A tiny model (13 numbers in, one out), one client, one row per request; a server that runs each request alone, and one
that merges requests into batches. The ways take turns within one run, so that whatever else the machine does falls on
all of them; in a turn the client sends ten requests, each when the one before is answered. The clients are raw
(generated stub, http.client): only the server counts. Beside them the gRPC library with nothing behind it, which
answers the same request with bytes that are ready.
"""

from __future__ import annotations

import http.client
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing

import click
import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from benchmarks.harness.results import Goal, Kind, Measurement
from benchmarks.harness.running import report
from benchmarks.serving.servers import COLUMNS, NAME, bare_grpc_server, server_process, write_sum_model
from serving.server.config import BatchingParameters
from serving.session_model import SessionModel

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


DIRECT, BARE = "session", "bare gRPC"
REQUESTS_PER_TURN = 10
ADDED_GOAL = Goal(2, of="value")  # milliseconds
BATCHING = {"": None, ", batching": BatchingParameters(max_batch_size=32)}
UNITS: Mapping[str, tuple[str, Kind]] = {
    "p50": ("ms", "time"),
    "p99": ("ms", "step"),
    "requests": ("1/s", "throughput"),
}

Call = Callable[[], float]


@click.command()
@click.option("--requests", default=2000, show_default=True, help="Of each kind.")
def main(requests: int) -> None:
    """Print the table."""
    tf.get_logger().setLevel("ERROR")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        write_sum_model(f"{folder}/1")
        calls = {DIRECT: _direct(stack.enter_context(closing(SessionModel(f"{folder}/1"))))}
        bare_port = stack.enter_context(bare_grpc_server(_answer()))
        calls[BARE] = _grpc(stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{bare_port}")))
        for name, batching in BATCHING.items():
            ports = stack.enter_context(server_process(NAME, folder, batching))
            channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{ports.grpc}"))
            connection = stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", ports.rest)))
            calls |= {f"gRPC{name}": _grpc(channel), f"REST{name}": _rest(connection)}
        seconds = _take_turns(calls, requests)
    report("one row per request, one client", _compared(seconds))


def _row() -> dict[str, np.ndarray]:
    return {f"column_{i}": np.array([float(i)], np.float32) for i in range(COLUMNS)}


def _answer() -> bytes:
    """What the model answers, as the server sends it."""
    response = predict_pb2.PredictResponse()
    response.outputs["output_0"].CopyFrom(tf.make_tensor_proto([float(sum(range(COLUMNS)))], tf.float32))
    serialized: bytes = response.SerializeToString()
    return serialized


def _direct(model: SessionModel) -> Call:
    row = _row()
    return lambda: float(model.run("serving_default", row)["output_0"][0])


def _grpc(channel: grpc.Channel) -> Call:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = NAME
    for name, values in _row().items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    return lambda: float(stub.Predict(request).outputs["output_0"].float_val[0])


def _rest(connection: http.client.HTTPConnection) -> Call:
    body = json.dumps({"inputs": {name: values.tolist() for name, values in _row().items()}})

    def call() -> float:
        connection.request("POST", f"/v1/models/{NAME}:predict", body)
        return float(json.loads(connection.getresponse().read())["outputs"][0])

    return call


def _take_turns(calls: Mapping[str, Call], requests: int) -> dict[str, np.ndarray]:
    expected = sum(range(COLUMNS))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(0, requests + requests // 10, REQUESTS_PER_TURN):
        for name, call in calls.items():
            for _ in range(REQUESTS_PER_TURN):
                start = time.perf_counter()
                answer = call()
                seconds[name].append(time.perf_counter() - start)
                if answer != expected:
                    raise SystemExit(f"{name} answered {answer}, expected {expected}")
    return {name: np.array(values[-requests:]) for name, values in seconds.items()}  # the first tenth warms up


def _compared(seconds: Mapping[str, np.ndarray]) -> list[Measurement]:
    """The median, the 99th percentile and the rate of each way, beside those of the session."""
    found = []
    for name, values in seconds.items():
        for what, measured in _figures(values).items():
            direct = _figures(seconds[DIRECT])[what]
            unit, kind = UNITS[what]
            beside = () if name == DIRECT else (measured / direct, f"{DIRECT}, {what}")
            found.append(Measurement(f"{name}: {what}", measured, unit, kind, *beside))
    direct, grpc_alone = (_figures(seconds[name])["p50"] for name in (DIRECT, "gRPC"))
    added = grpc_alone - direct
    return [
        *found,
        Measurement("gRPC: added at p50", added, "ms", "step", added / direct, f"{DIRECT}, p50", ADDED_GOAL),
    ]


def _figures(seconds: np.ndarray) -> dict[str, float]:
    p50, p99 = np.percentile(seconds, [50, 99]) * 1e3
    return {"p50": float(p50), "p99": float(p99), "requests": float(1 / seconds.mean())}


if __name__ == "__main__":
    main()
