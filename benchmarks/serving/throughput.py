"""Throughput for 16 clients of the embedded server, with and without batching, beside the session's best.

    python -m benchmarks.serving.throughput

InceptionV3 on JPEGs of half a megabyte, bytes in, label out. In process, the session is called with batches of several
sizes; the size that brings most photos per second is the server's max_batch_size. Then the session and two servers,
one of which runs each request alone, take turns, so that whatever else the machine does falls on all.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import grpc
import numpy as np
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from benchmarks.harness.results import Goal, Measurement
from benchmarks.harness.running import report
from benchmarks.serving.servers import server_process
from serving.server.config import BatchingParameters
from serving.session_model import SessionModel

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


NAME = "inception"
BATCH_SIZES = (1, 2, 4, 8, 16)
SESSION = "session, best batches"


@dataclass(frozen=True)
class _Turn:
    """The seconds of each call, and of all."""

    calls: list[float]
    seconds: float


@click.command()
@click.option("--rounds", default=3, show_default=True, help="How often session and servers take turns.")
@click.option("--clients", default=16, show_default=True)
@click.option("--photos", default=64, show_default=True, help="Of each turn.")
def main(rounds: int, clients: int, photos: int) -> None:
    """Print the table."""
    import keras

    from benchmarks.image.graph import example_image, image_export

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        photo = example_image()
        export = image_export(keras.applications.InceptionV3(weights=None), "float32", photo, folder)
        base_path = Path(folder) / "models" / NAME
        base_path.mkdir(parents=True)
        Path(export).rename(base_path / "1")
        session = stack.enter_context(closing(SessionModel(str(base_path / "1"))))
        at_once = {size: np.array([photo] * size, object) for size in BATCH_SIZES}
        # The fastest of several turns of each: what the machine does besides only slows down.
        tried = {size: min(_direct(session, at_once[size], 16).seconds for _ in range(2)) for size in BATCH_SIZES}
        best = min(tried, key=lambda size: tried[size])
        parameters = BatchingParameters(max_batch_size=best, batch_timeout_micros=10_000, max_enqueued_batches=100)
        turns: dict[str, Callable[[], _Turn]] = {SESSION: lambda: _direct(session, at_once[best], photos)}
        for name, batching in ((f"{clients} clients, batching", parameters), (f"{clients} clients", None)):
            port = stack.enter_context(server_process(NAME, str(base_path), batching)).grpc
            call = _call(stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}")), photo)
            _served(call, clients, clients)  # the first requests of a session are slow
            turns[name] = partial(_served, call, clients, photos)
        found: dict[str, list[_Turn]] = {name: [] for name in turns}
        for _ in range(rounds):
            for name, turn in turns.items():
                found[name].append(turn())
    report(f"InceptionV3 over gRPC, batches of {best}", _compared(found, photos))


def _call(channel: grpc.Channel, photo: bytes) -> Callable[[], float]:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = NAME
    request.inputs["image"].dtype = 7
    request.inputs["image"].tensor_shape.dim.add(size=1)
    request.inputs["image"].string_val.append(photo)

    def call() -> float:
        start = time.perf_counter()
        answer = stub.Predict(request).outputs["output_0"].string_val
        if len(answer) != 1 or not answer[0]:
            raise SystemExit(f"expected one label, received {answer}")
        return time.perf_counter() - start

    return call


def _direct(session: SessionModel, batch: np.ndarray, photos: int) -> _Turn:
    session.run("serving_default", {"image": batch})
    calls, begin = [], time.perf_counter()
    for _ in range(photos // len(batch)):
        start = time.perf_counter()
        session.run("serving_default", {"image": batch})
        calls.append(time.perf_counter() - start)
    return _Turn(calls, time.perf_counter() - begin)


def _served(call: Callable[[], float], clients: int, photos: int) -> _Turn:
    begin = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        calls = list(threads.map(lambda _: call(), range(photos)))
    return _Turn(calls, time.perf_counter() - begin)


def _compared(found: Mapping[str, Sequence[_Turn]], photos: int) -> list[Measurement]:
    """The medians of the rates, of their ratios turn by turn, and percentiles of all calls."""
    rates = {name: np.array([photos / turn.seconds for turn in turns]) for name, turns in found.items()}
    measurements = []
    for name, turns in found.items():
        ratio = None if name == SESSION else float(np.median(rates[name] / rates[SESSION]))
        beside = SESSION if ratio else ""
        goal = Goal(0.9) if "batching" in name else None
        rate = float(np.median(rates[name]))
        measurements.append(Measurement(f"{name}: photos", rate, "1/s", "throughput", ratio, beside, goal))
        for what, percentile in (("p50", 50), ("p99", 99)):
            spent, direct = (
                float(np.percentile([call for turn in each for call in turn.calls], percentile)) * 1e3
                for each in (turns, found[SESSION])
            )
            of = (spent / direct, f"{SESSION}, {what}") if ratio else ()
            measurements.append(Measurement(f"{name}: {what}", spent, "ms", "step", *of))
    return measurements


if __name__ == "__main__":
    main()
