"""What 16 clients get from the embedded server with batching, beside the best that the session itself gives.

    python -m benchmarks.serving_throughput

InceptionV3 on JPEGs of half a megabyte, bytes in, label out. In process, the session is called with batches of several
sizes; the size that brings most photos per second is the server's max_batch_size. Then the session and the server take
turns, so that whatever else the machine does falls on both.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import grpc
import numpy as np
from rich.console import Console
from rich.table import Table
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.server.batching_parameters import BatchingParameters
from serving.server.embedded_server import EmbeddedServer
from serving.server.server_options import ServerOptions
from serving.session_model import SessionModel

NAME = "inception"
BATCH_SIZES = (1, 2, 4, 8, 16)

Seconds = list[float]


@click.command()
@click.option("--rounds", default=3, show_default=True, help="How often session and server take turns.")
@click.option("--clients", default=16, show_default=True)
@click.option("--photos", default=64, show_default=True, help="Of each turn.")
def main(rounds: int, clients: int, photos: int) -> None:
    """Print the table."""
    import keras

    from benchmarks.image_export import example_photo, image_export

    with tempfile.TemporaryDirectory() as folder:
        photo = example_photo()
        export = image_export(keras.applications.InceptionV3(weights=None), "float32", photo, folder)
        base_path = Path(folder) / "models" / NAME
        base_path.mkdir(parents=True)
        Path(export).rename(base_path / "1")
        session = SessionModel(str(base_path / "1"))
        at_once = {size: np.array([photo] * size, object) for size in BATCH_SIZES}
        # The fastest of several turns of each: what the machine does besides only slows down.
        tried = {size: min(_direct(session, at_once[size], 16)[1] for _ in range(2)) for size in BATCH_SIZES}
        best = min(tried, key=lambda size: tried[size])
        parameters = BatchingParameters(max_batch_size=best, batch_timeout_micros=10_000, max_enqueued_batches=100)
        with _server(str(base_path), parameters) as port, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = _call(channel, photo)
            _served(call, clients, clients)  # the first requests of a session are slow
            direct, served = [], []
            for _ in range(rounds):
                direct.append(_direct(session, at_once[best], photos))
                served.append(_served(call, clients, photos))
        session.close()
    _print(best, clients, photos, direct, served)


@contextmanager
def _server(base_path: str, parameters: BatchingParameters) -> Iterator[int]:
    """A server process, as `ingraph serve` is one; yields its gRPC port."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(base_path, parameters, there))
    process.start()
    try:
        yield here.recv()
    finally:
        here.send("stop")
        process.join()


def _serve(base_path: str, parameters: BatchingParameters, connection: Connection) -> None:
    with EmbeddedServer({NAME: base_path}, ServerOptions(rest_port=0, grpc_port=0, batching=parameters)) as server:
        connection.send(server.grpc_port)
        connection.recv()


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


def _direct(session: SessionModel, batch: np.ndarray, photos: int) -> tuple[Seconds, float]:
    """The seconds of each call, and of all."""
    session.run("serving_default", {"image": batch})
    seconds, begin = [], time.perf_counter()
    for _ in range(photos // len(batch)):
        start = time.perf_counter()
        session.run("serving_default", {"image": batch})
        seconds.append(time.perf_counter() - start)
    return seconds, time.perf_counter() - begin


def _served(call: Callable[[], float], clients: int, photos: int) -> tuple[Seconds, float]:
    begin = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        seconds = list(threads.map(lambda _: call(), range(photos)))
    return seconds, time.perf_counter() - begin


def _photos_per_second(seconds: float, photos: int) -> float:
    return photos / seconds


def _print(
    best: int, clients: int, photos: int, direct: list[tuple[Seconds, float]], served: list[tuple[Seconds, float]]
) -> None:
    table = Table("", "photos per second", "p50 ms", "p99 ms", title=f"InceptionV3, max_batch_size {best}")
    rates = []
    for name, turns in ((f"session, batches of {best}", direct), (f"server, {clients} clients over gRPC", served)):
        rates.append([_photos_per_second(seconds, photos) for _, seconds in turns])
        median, tail = np.percentile([seconds for turn, _ in turns for seconds in turn], [50, 99])
        table.add_row(name, f"{np.median(rates[-1]):.1f}", f"{median * 1e3:.0f}", f"{tail * 1e3:.0f}")
    Console().print(table)
    ratios = [served / direct for direct, served in zip(*rates, strict=True)]
    Console().print(f"server over session, turn by turn: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


if __name__ == "__main__":
    main()
