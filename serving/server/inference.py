"""How a request's tensors reach a model without the event loop waiting for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import TypeVar

import numpy as np

from serving.client.canonical_code import CanonicalCode
from serving.server.batch_scheduler import BatchScheduler
from serving.server.model_in_use import ModelInUse
from serving.server.run_signature import checked_request, run_checked
from serving.server.server_metrics import ServerMetrics
from serving.server.serving_error import ServingError
from serving.session_model import SessionModel

# Smaller documents are converted on the event loop: in less time than handing them to a thread and back takes.
CONVERTED_AT_ONCE_BYTES = 64 * 1024

Result = TypeVar("Result")


class Inference:
    """Runs signatures in threads, and gives up waiting for them at the caller's deadline.

    Args:
        executor: the threads for what runs alone, and for conversions.
        batching: merges requests; None where each runs alone.
        metrics: notes what is answered; None where nothing does.
    """

    def __init__(
        self, executor: Executor, batching: BatchScheduler | None = None, metrics: ServerMetrics | None = None
    ) -> None:
        self._executor = executor
        self._batching = batching
        self._metrics = metrics

    async def run(
        self,
        served: ModelInUse,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        output_filter: Sequence[str] = (),
        timeout_seconds: float | None = None,
    ) -> dict[str, np.ndarray]:
        """The outputs that the filter names, or all of the signature's, in the signature's order.

        Raises:
            ServingError: INVALID_ARGUMENT, inputs or filter do not fit the signature; UNAVAILABLE, too many requests
                wait already; DEADLINE_EXCEEDED after the time-out, while the model stays loaded until the graph, which
                is told to stop, has stopped; or the op's own code and message.
            KeyError: the model has no such signature.
        """
        feeds, fetches = checked_request(served.model.signatures[signature], inputs, output_filter)
        started = time.perf_counter()
        deadline = None if timeout_seconds is None else started + timeout_seconds
        work: Awaitable[dict[str, np.ndarray]]
        if self._batching is not None:
            work = self._batching.run(served, signature, feeds, fetches, timeout_seconds)
        else:
            # The caller may leave; the thread cannot.
            work = served.version.start(self._executor, _run_before, deadline, served.model, signature, feeds, fetches)
        try:
            async with asyncio.timeout(timeout_seconds):
                outputs = await work
        except TimeoutError:
            raise _too_late() from None
        if self._metrics is not None:
            seconds = time.perf_counter() - started
            self._metrics.observe_outputs(served.name, served.number, signature, outputs, seconds)
        return outputs

    async def convert(self, size: int, function: Callable[..., Result], *arguments: object) -> Result:
        """The function's result; called in a thread where what it converts is large.

        Args:
            size: of what is converted, in bytes or values.
            function: pure, such as a parser.
            arguments: the function's.
        """
        if size <= CONVERTED_AT_ONCE_BYTES:
            return function(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)


def _run_before(
    deadline: float | None, model: SessionModel, signature: str, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]
) -> dict[str, np.ndarray]:
    """In a thread: what had to wait for the thread until nobody waits for the answer any more is not run at all."""
    if deadline is None:
        return run_checked(model, signature, feeds, fetches)
    left = deadline - time.perf_counter()
    if left <= 0:
        raise _too_late()
    return run_checked(model, signature, feeds, fetches, left)


def _too_late() -> ServingError:
    return ServingError(CanonicalCode.DEADLINE_EXCEEDED, "Timed out waiting for notification")
