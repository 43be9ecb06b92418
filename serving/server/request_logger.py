"""Answered requests -> the request logs of their models, as TensorFlow Serving's PredictionLogs."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tensorflow_serving.apis import model_pb2, prediction_log_pb2

from serving.client.canonical_code import CanonicalCode
from serving.client.tensor_proto import to_proto
from serving.server.model_in_use import ModelInUse
from serving.server.request_log import RequestLog
from serving.server.request_log_options import RequestLogOptions
from serving.server.served_model import ServedModel

WAITING_BYTES = 64 * 2**20  # of requests that wait to be written; what comes then is lost
_ENTRY_BYTES = 1024  # that even the smallest one takes

Fill = Callable[[prediction_log_pb2.PredictionLog], None]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Entry:
    options: RequestLogOptions
    spec: model_pb2.ModelSpec
    seconds: int
    size: int
    fill: Fill


class RequestLogger:
    """Draws the requests to log and leaves their writing to a thread of its own; no request waits for it or fails.

    Its methods are for the event loop's own thread.

    Args:
        models: by name; each says whether and where its requests are logged.
        count: told of every request that was drawn: the model, and OK or why it is lost. Called in both threads.
    """

    def __init__(self, models: Mapping[str, ServedModel], count: Callable[[str, CanonicalCode], None]) -> None:
        self._models = models
        self._count = count
        self._random = random.Random()
        self._changed = threading.Condition()
        self._waiting: list[_Entry] = []
        self._waiting_bytes = 0
        self._closing = False
        self._thread: threading.Thread | None = None

    def log_messages(self, served: ModelInUse, signature: str, kind: str, request: Any, response: Any) -> None:
        """Log a request and its answer, if it is drawn.

        Args:
            served: what has answered.
            signature: what was asked; "" where several were.
            kind: the field of PredictionLog, such as "classify_log".
            request: the message, which nobody changes any more. Likewise the response.
        """
        options = self._drawn(served)
        if options is None:
            return

        def fill(log: prediction_log_pb2.PredictionLog) -> None:
            entry = getattr(log, kind)
            entry.request.CopyFrom(request)
            entry.response.CopyFrom(response)

        self._put(options, served, signature, request.ByteSize() + response.ByteSize(), fill)

    def log_arrays(
        self,
        served: ModelInUse,
        asked: model_pb2.ModelSpec,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Mapping[str, np.ndarray],
        size: int,
    ) -> None:
        """Log a request for a prediction that came as JSON, if it is drawn.

        Args:
            served: what has answered.
            asked: as the request had it.
            signature: what was asked.
            inputs: of the signature.
            outputs: of the signature.
            size: of both, in bytes, roughly.
        """
        options = self._drawn(served)
        if options is None:
            return
        answered = _spec(served, signature)

        def fill(log: prediction_log_pb2.PredictionLog) -> None:
            request, response = log.predict_log.request, log.predict_log.response
            request.model_spec.CopyFrom(asked)
            response.model_spec.CopyFrom(answered)
            for arrays, tensors in ((inputs, request.inputs), (outputs, response.outputs)):
                for alias, array in arrays.items():
                    to_proto(array, tensors[alias], as_content=False)

        self._put(options, served, signature, size, fill)

    def close(self, timeout_seconds: float) -> None:
        """Write what waits, and end the files; what takes longer than the time-out is lost."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout_seconds)
            if self._thread.is_alive():
                logger.warning("%d requests could not be logged before the end", len(self._waiting))

    def _drawn(self, served: ModelInUse) -> RequestLogOptions | None:
        model = self._models.get(served.name)
        options = model.request_log if model is not None else None
        return options if options is not None and self._random.random() < options.sampling_rate else None

    def _put(self, options: RequestLogOptions, served: ModelInUse, signature: str, size: int, fill: Fill) -> None:
        entry = _Entry(options, _spec(served, signature), int(time.time()), size + _ENTRY_BYTES, fill)
        with self._changed:
            there_is_room = self._waiting_bytes + entry.size <= WAITING_BYTES and not self._closing
            if there_is_room:
                self._waiting.append(entry)
                self._waiting_bytes += entry.size
                self._changed.notify()
        if not there_is_room:
            self._count(served.name, CanonicalCode.RESOURCE_EXHAUSTED)
        elif self._thread is None:
            self._thread = threading.Thread(target=self._write_to_the_end, name="request-log", daemon=True)
            self._thread.start()

    def _write_to_the_end(self) -> None:
        logs: dict[str, RequestLog] = {}
        while entries := self._next_entries():
            for entry in entries:
                prefix = entry.options.filename_prefix
                if prefix not in logs:
                    logs[prefix] = RequestLog(prefix)
                code = _write(entry, logs[prefix])
                self._count(entry.spec.name, code)
                with self._changed:
                    self._waiting_bytes -= entry.size
        for log in logs.values():
            log.close()

    def _next_entries(self) -> list[_Entry]:
        """What waits, at least one; none at the end."""
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            entries, self._waiting = self._waiting, []
        return entries


def _write(entry: _Entry, log: RequestLog) -> CanonicalCode:
    try:
        message = prediction_log_pb2.PredictionLog()
        message.log_metadata.model_spec.CopyFrom(entry.spec)
        message.log_metadata.sampling_config.sampling_rate = entry.options.sampling_rate
        message.log_metadata.saved_model_tags.append("serve")
        message.log_metadata.timestamp_secs = entry.seconds
        entry.fill(message)
        return log.append(message.SerializeToString())
    except Exception:  # such as a message of more than 2 GiB; the thread goes on
        logger.exception("a request to %s could not be logged", entry.spec.name)
        return CanonicalCode.INTERNAL


def _spec(served: ModelInUse, signature: str) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=served.name, signature_name=signature)
    spec.version.value = served.number
    return spec
