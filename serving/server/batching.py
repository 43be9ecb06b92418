"""Dynamic batching: requests of different callers run as one batch (batching_util/shared_batch_scheduler.h)."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from serving.client.errors import CanonicalCode
from serving.server.config import BatchingParameters
from serving.server.errors import ServingError, invalid_argument
from serving.server.models import ModelInUse
from serving.server.signatures import run_checked
from serving.server.versions import ServedVersion
from serving.session_model import SessionModel

Tensors = Mapping[str, np.ndarray]


def batch_rows(inputs: Tensors) -> int:
    """How many rows a request has.

    Raises:
        ServingError: INVALID_ARGUMENT, the inputs have no common first dimension.
    """
    if not inputs:
        raise invalid_argument("Batching Run() must have at least one input tensor")
    if any(array.ndim == 0 for array in inputs.values()):
        raise invalid_argument("Batching Run() input tensors must have at least one dimension")
    rows = {len(array) for array in inputs.values()}
    if len(rows) > 1:
        raise invalid_argument("Batching Run() input tensors must have equal 0th-dimension size")
    return rows.pop()


def merge(requests: Sequence[Tensors], rows: int) -> dict[str, np.ndarray]:
    """One batch of so many rows: the requests' own, one after the other, and the last request's first row as filling.

    Inputs of different lengths are padded with their own first value, as TensorFlow Serving does.

    Raises:
        ServingError: INVALID_ARGUMENT, an empty input among longer ones.
    """
    merged = {}
    for name in requests[0]:
        arrays = [request[name] for request in requests]
        if len({array.shape[1:] for array in arrays}) > 1:
            longest = np.max([array.shape[1:] for array in arrays], axis=0)
            arrays = [_padded(array, longest) for array in arrays]
        missing = rows - sum(len(array) for array in arrays)
        if missing:
            arrays.append(np.repeat(arrays[-1][:1], missing, axis=0))
        merged[name] = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
    return merged


def split(outputs: Tensors, rows: Sequence[int], merged_rows: int) -> list[dict[str, np.ndarray]]:
    """The answer to each request, of so many rows each.

    Raises:
        ServingError: FAILED_PRECONDITION, an output has not one row for each row of the batch.
    """
    for array in outputs.values():
        if array.ndim == 0:
            raise ServingError(CanonicalCode.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions")
        if len(array) != merged_rows:
            raise ServingError(
                CanonicalCode.FAILED_PRECONDITION,
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
                "tensors",
            )
    ends = np.cumsum(rows).tolist()
    return [
        {name: array[end - count : end] for name, array in outputs.items()}
        for end, count in zip(ends, rows, strict=True)
    ]


def _padded(array: np.ndarray, longest: np.ndarray) -> np.ndarray:
    missing = [(0, 0), *((0, int(wanted) - size) for wanted, size in zip(longest, array.shape[1:], strict=True))]
    if not any(after for _, after in missing):
        return array
    if not array.size:
        raise invalid_argument("Got empty tensor in batch of non-empty tensors.")
    return np.pad(array, missing, constant_values=array.flat[0])


@dataclass(frozen=True)
class BatchRecord:
    """A batch that has started: its rows without the filling, and the seconds that each of its requests has waited."""

    name: str
    version: int
    signature: str
    rows: int
    waited: Sequence[float]


@dataclass(frozen=True)
class _Kind:
    """What can be merged: requests to one version and signature, for the same outputs, with inputs that fit."""

    name: str
    version: ServedVersion
    signature: str
    inputs: tuple[tuple[str, tuple[int, ...]], ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class _Request:
    inputs: Tensors
    rows: int
    arrived: float
    deadline: float
    answer: asyncio.Future[dict[str, np.ndarray]]


@dataclass
class _Batch:
    opened: float
    requests: list[_Request] = field(default_factory=list)
    rows: int = 0

    def add(self, request: _Request) -> None:
        self.requests.append(request)
        self.rows += request.rows


_MOST_MODELS = 256


class BatchScheduler:
    """Merges requests into batches, which run in threads that all models share; for the event loop's own thread only.

    A batch runs when a thread is free, or its model has none, and it is full or its first request has waited for the
    timeout.

    Attributes:
        observe: called with each batch that starts.
    """

    def __init__(self, parameters: BatchingParameters) -> None:
        self.observe: Callable[[BatchRecord], None] | None = None
        self._parameters = parameters
        # A model for which no thread is free has one of its own, which is begun when it is needed.
        most = parameters.num_batch_threads + _MOST_MODELS
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="batch")
        self._running: Counter[str] = Counter()
        self._free_threads = parameters.num_batch_threads
        # In the order in which they are next looked at; the last batch of each is open for more.
        self._queues: dict[_Kind, deque[_Batch]] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def run(
        self,
        served: ModelInUse,
        signature: str,
        inputs: Tensors,
        outputs: Sequence[str],
        timeout_seconds: float | None = None,
    ) -> dict[str, np.ndarray]:
        """The outputs for one request, from whatever batches it becomes part of.

        A batch is stopped at the latest of its requests' time-outs; a request whose caller is cancelled before its
        batch runs is left out.

        Raises:
            ServingError: INVALID_ARGUMENT, no rows in common or too many; UNAVAILABLE, the queue is full; or what the
                whole batch failed with.
        """
        rows = batch_rows(inputs)
        parameters = self._parameters
        if rows > parameters.max_batch_size:
            raise invalid_argument(
                f"Task size {rows} is larger than maximum input batch size {parameters.max_batch_size}"
            )
        shapes = tuple(
            # Under padding only the number of dimensions has to be the same.
            (name, (inputs[name].ndim,) if parameters.pad_variable_length_inputs else inputs[name].shape[1:])
            for name in sorted(inputs)
        )
        kind = _Kind(served.name, served.version, signature, shapes, tuple(sorted(outputs)))
        parts = self._parts(kind, rows)
        self._check_capacity(kind, parts)
        deadline = math.inf if timeout_seconds is None else time.monotonic() + timeout_seconds
        answers = [
            self._enqueue(kind, {name: array[start:end] for name, array in inputs.items()}, end - start, deadline)
            for start, end in parts
        ]
        self._start_batches()
        try:
            answered = await asyncio.gather(*answers)
        finally:
            for answer in answers:
                answer.cancel()
        if len(answered) == 1:
            return {name: answered[0][name] for name in outputs}
        return {name: np.concatenate([part[name] for part in answered]) for name in outputs}

    def depths(self) -> dict[tuple[str, int, str], int]:
        """How many requests wait, by model, version and signature."""
        depths: dict[tuple[str, int, str], int] = {}
        for kind, batches in self._queues.items():
            key = (kind.name, kind.version.number, kind.signature)
            depths[key] = depths.get(key, 0) + sum(len(batch.requests) for batch in batches)
        return depths

    def close(self) -> None:
        """End the threads, once all versions are unloaded."""
        self._threads.shutdown()

    def _parts(self, kind: _Kind, rows: int) -> list[tuple[int, int]]:
        """The ranges of rows that go into one batch each: the first fills up the open one where requests are split."""
        largest = self._parameters.largest_batch
        if not self._parameters.enable_large_batch_splitting:
            return [(0, rows)]
        queue = self._queues.get(kind)
        room = largest - queue[-1].rows if queue else 0
        starts = [0, *range(room or largest, rows, largest)]
        return list(zip(starts, [*starts[1:], rows], strict=True))

    def _check_capacity(self, kind: _Kind, parts: Sequence[tuple[int, int]]) -> None:
        queue = self._queues.get(kind, deque())
        first = parts[0][1] - parts[0][0]
        fits = bool(queue) and queue[-1].rows + first <= self._parameters.largest_batch
        limit = self._parameters.max_enqueued_batches
        if len(queue) + len(parts) - fits > limit:
            raise ServingError(
                CanonicalCode.UNAVAILABLE,
                "The batch scheduling queue to which this task was submitted is full; currently "
                f"{len(queue)} batches enqueued and max_enqueued_batches is {limit}",
            )

    def _enqueue(
        self, kind: _Kind, inputs: Tensors, rows: int, deadline: float
    ) -> asyncio.Future[dict[str, np.ndarray]]:
        now = time.monotonic()
        queue = self._queues.setdefault(kind, deque())
        if not queue or queue[-1].rows + rows > self._parameters.largest_batch:
            queue.append(_Batch(now))
        answer: asyncio.Future[dict[str, np.ndarray]] = asyncio.get_running_loop().create_future()
        queue[-1].add(_Request(inputs, rows, now, deadline, answer))
        return answer

    def _start_batches(self) -> None:
        while True:
            kind, wait = self._next()
            if kind is None:
                self._wake_up_in(wait)
                return
            queue = self._queues.pop(kind)
            batch = queue.popleft()
            if queue:
                self._queues[kind] = queue  # behind the others, which are served first
            self._start(kind, batch)

    def _next(self) -> tuple[_Kind | None, float]:
        """The first queue whose batch may run, or the seconds until one may, unless a batch ends before."""
        now, wait = time.monotonic(), math.inf
        for kind, queue in self._queues.items():
            if self._free_threads <= 0 and self._running[kind.name]:
                continue
            age = now - queue[0].opened
            remaining = self._parameters.batch_timeout_micros / 1e6 - age
            if len(queue) > 1 or queue[0].rows >= self._parameters.largest_batch or remaining <= 0:
                return kind, 0.0
            wait = min(wait, remaining)
        return None, wait

    def _wake_up_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds < math.inf:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._start_batches)

    def _start(self, kind: _Kind, batch: _Batch) -> None:
        # Who has gone away, after a timeout or a lost connection, is left out.
        requests = [request for request in batch.requests if not request.answer.done()]
        if not requests:
            return
        if self.observe is not None:
            now = time.monotonic()
            waited = [now - request.arrived for request in requests]
            rows = sum(request.rows for request in requests)
            self.observe(BatchRecord(kind.name, kind.version.number, kind.signature, rows, waited))
        self._free_threads -= 1
        self._running[kind.name] += 1
        latest = max(request.deadline for request in requests)
        done = kind.version.start(
            self._threads,
            _run_batch,
            kind.version.model,
            kind.signature,
            [request.inputs for request in requests],
            kind.outputs,
            self._parameters,
            None if latest == math.inf else latest - time.monotonic(),
        )
        done.add_done_callback(lambda done: self._finish(kind, requests, done))

    def _finish(
        self, kind: _Kind, requests: Sequence[_Request], done: asyncio.Future[list[dict[str, np.ndarray]]]
    ) -> None:
        self._free_threads += 1
        self._running[kind.name] -= 1
        error = done.exception()
        for position, request in enumerate(requests):
            if request.answer.done():
                continue
            if error is not None:
                request.answer.set_exception(error)
            else:
                request.answer.set_result(done.result()[position])
        self._start_batches()


def _run_batch(
    model: SessionModel,
    signature: str,
    requests: Sequence[Tensors],
    outputs: Sequence[str],
    parameters: BatchingParameters,
    timeout_seconds: float | None,
) -> list[dict[str, np.ndarray]]:
    rows = [batch_rows(request) for request in requests]
    # A batch without rows has none that it could be filled up with.
    merged_rows = parameters.padded_size(sum(rows)) if sum(rows) else 0
    merged = merge([request for request, count in zip(requests, rows, strict=True) if count] or requests, merged_rows)
    return split(run_checked(model, signature, merged, outputs, timeout_seconds), rows, merged_rows)
