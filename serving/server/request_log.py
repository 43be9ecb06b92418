"""Request logs: answered requests in files of TFRecords, as TensorFlow Serving's PredictionLogs."""

from __future__ import annotations

import itertools
import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import model_pb2, prediction_log_pb2

from serving.client.errors import CanonicalCode
from serving.client.tensors import to_proto
from serving.server.config import RequestLogOptions
from serving.server.models import ModelInUse, ServedModel


@dataclass(frozen=True)
class RequestRecord:
    """One answered request, for the access log and for metrics.

    Attributes:
        entrypoint: "REST" or "GRPC".
        method: as in gRPC: "Predict", "Classify", "GetModelStatus" …; "" where the request is none.
        model: the name it asked for, or "".
        code: what it was answered with.
        seconds: from its head to its answer, without the writing of the answer.
        peer: the client's address.
        request_bytes: of the body, decompressed, or of the message.
        response_bytes: likewise.
    """

    entrypoint: str
    method: str
    model: str
    code: CanonicalCode
    seconds: float
    peer: str
    request_bytes: int
    response_bytes: int


MAXIMUM_FILE_BYTES = 64 * 2**20
MAXIMUM_FILE_SECONDS = 3600.0
KEPT_BYTES = 2**30  # of all files of a prefix; then the oldest ones go
RETRY_SECONDS = 10.0  # after a failure: nobody needs to hear of a full disk with every request

SUFFIX = ".tfrecord"
# <prefix>-<when it was begun>-<process>-<number>.tfrecord: in the order of their names the oldest comes first.
_NAME = r"-\d{8}-\d{6}-\d+-\d{5}" + re.escape(SUFFIX)

logger = logging.getLogger(__name__)


class RequestLog:
    """Appends records to a file, another one when it is large or old; never raises, and never waits. For one thread.

    Args:
        prefix: how the names of the files begin, with their folder, which is made.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = Path(prefix)
        self._numbers = itertools.count()
        self._writer: tf.io.TFRecordWriter | None = None
        self._file = Path()
        self._file_bytes = 0
        self._file_ends = 0.0
        self._try_again = 0.0
        self._trouble = ""

    def append(self, record: bytes) -> CanonicalCode:
        """Write a record and flush it; OK, or why it is lost."""
        now = time.monotonic()
        if now < self._try_again:
            return CanonicalCode.UNAVAILABLE
        try:
            if self._writer is None or self._file_bytes >= MAXIMUM_FILE_BYTES or now >= self._file_ends:
                self._begin_file(now)
            assert self._writer is not None
            self._writer.write(record)
            self._writer.flush()
        except (OSError, tf.errors.OpError) as error:
            self.close()
            self._remove_empty_file()
            self._try_again = now + RETRY_SECONDS
            self._report((error.strerror if isinstance(error, OSError) else error.message) or str(error))
            return CanonicalCode.UNAVAILABLE
        self._file_bytes += len(record)
        self._trouble = ""
        return CanonicalCode.OK

    def close(self) -> None:
        """End the file; the next record begins another one."""
        if self._writer is not None:
            with suppress(OSError, tf.errors.OpError):
                self._writer.close()
            self._writer = None

    def _begin_file(self, now: float) -> None:
        self.close()
        self._prefix.parent.mkdir(parents=True, exist_ok=True)
        started = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        name = f"{self._prefix.name}-{started}-{os.getpid()}-{next(self._numbers):05d}{SUFFIX}"
        self._file = self._prefix.with_name(name)
        # Requests are their senders' own affair: nobody but the server's user reads them.
        os.close(os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        self._remove_oldest_files()
        self._writer = tf.io.TFRecordWriter(str(self._file))
        self._file_bytes, self._file_ends = 0, now + MAXIMUM_FILE_SECONDS

    def _remove_oldest_files(self) -> None:
        name = re.compile(re.escape(self._prefix.name) + _NAME)
        kept = KEPT_BYTES - MAXIMUM_FILE_BYTES  # the new one will grow
        for path in sorted((path for path in self._prefix.parent.iterdir() if name.fullmatch(path.name)), reverse=True):
            with suppress(FileNotFoundError):  # another server has the same prefix
                kept -= path.stat().st_size
                if kept < 0:
                    path.unlink()

    def _remove_empty_file(self) -> None:
        """On a full disk a file can be made, and nothing be written into it."""
        with suppress(OSError):
            if self._file.stat().st_size == 0:
                self._file.unlink()

    def _report(self, trouble: str) -> None:
        if trouble != self._trouble:
            logger.warning(
                "the request log %s cannot be written: %s; requests are answered all the same, and the log is tried "
                "again every %g s",
                self._prefix,
                trouble,
                RETRY_SECONDS,
            )
        self._trouble = trouble


WAITING_BYTES = 64 * 2**20  # of requests that wait to be written; what comes then is lost
_ENTRY_BYTES = 1024  # that even the smallest one takes

Fill = Callable[[prediction_log_pb2.PredictionLog], None]


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
