"""The candidate in TensorFlow Serving itself, and its warm-up requests.

https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc
from tfx.utils import io_utils, path_utils

from components.errors import ModelUnavailable, RequestRefused

Request = tuple[str, Mapping[str, np.ndarray]]


def predict_request(signature: str, inputs: Mapping[str, np.ndarray]) -> predict_pb2.PredictRequest:
    """The Predict request for one signature."""
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = signature
    for name, values in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    return request


def write_warmup_requests(saved_model: str, requests: Iterable[Request]) -> int:
    """Write assets.extra/tf_serving_warmup_requests; how many requests it holds."""
    logs = [
        prediction_log_pb2.PredictionLog(predict_log={"request": predict_request(signature, inputs)})
        for signature, inputs in requests
    ]
    io_utils.write_tfrecord_file(path_utils.warmup_file_path(saved_model), *logs)
    return len(logs)


def read_warmup_requests(saved_model: str) -> Iterator[Request]:
    """The requests that a SavedModel carries."""
    for record in tf.data.TFRecordDataset(path_utils.warmup_file_path(saved_model)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        inputs = {name: tf.make_ndarray(values) for name, values in request.inputs.items()}
        yield request.model_spec.signature_name, inputs


MODEL_NAME = "candidate"
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
SHOWN_LINES = 5


class ModelServer:
    """A tensorflow_model_server on loopback, with one model, as a context manager.

    Args:
        binary: path of the executable.
        saved_model: what it serves, as version 1.
        timeout_seconds: how long it may take to load the model, and for each answer.
    """

    def __init__(self, binary: str, saved_model: str, timeout_seconds: float) -> None:
        self._binary = binary
        self._saved_model = saved_model
        self._timeout_seconds = timeout_seconds

    def __enter__(self) -> ModelServer:
        self._folder = tempfile.TemporaryDirectory(prefix="serving_check_")
        io_utils.copy_dir(self._saved_model, f"{self._folder.name}/{MODEL_NAME}/1")
        self._log = tempfile.TemporaryFile()
        port = _free_port()
        self._process = subprocess.Popen(
            [
                self._binary,
                f"--port={port}",
                "--grpc_channel_arguments=grpc.so_reuseport=0",
                f"--model_name={MODEL_NAME}",
                f"--model_base_path={self._folder.name}/{MODEL_NAME}",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", UNLIMITED)
        self._service = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        try:
            self._wait_until_listening()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()
        self._process.kill()
        self._process.wait()
        self._log.close()
        self._folder.cleanup()

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of a signature.

        Raises:
            RequestRefused: the server answers with an error.
            ModelUnavailable: it has ended, or did not answer in time.
        """
        request = predict_request(signature, inputs)
        request.model_spec.name = MODEL_NAME
        try:
            response = self._service.Predict(request, timeout=self._timeout_seconds)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise ModelUnavailable(
                    f"{self._binary} gave no answer: {error.details()}; {self._log_end()}"
                ) from error
            raise RequestRefused(f"{error.code().name}: {error.details()}") from error
        return {name: tf.make_ndarray(values) for name, values in response.outputs.items()}

    def _wait_until_listening(self) -> None:
        # The server listens once its models are loaded and warm.
        ready = grpc.channel_ready_future(self._channel)
        deadline = time.monotonic() + self._timeout_seconds
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ModelUnavailable(
                    f"{self._binary} ended with status {self._process.returncode}: {self._log_end()}"
                )
            try:
                return ready.result(timeout=0.2)
            except grpc.FutureTimeoutError:
                continue
        raise ModelUnavailable(
            f"{self._binary} did not load the model in {self._timeout_seconds:g} s: {self._log_end()}"
        )

    def _log_end(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()[-SHOWN_LINES:]
        return " | ".join(lines) or "it printed nothing"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
