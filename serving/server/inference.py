"""How a request's tensors reach a model without the event loop waiting for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import TypeVar

import numpy as np

from serving.client.canonical_code import CanonicalCode
from serving.server.model_manager import ModelInUse
from serving.server.run_signature import run_signature
from serving.server.serving_error import ServingError

# Smaller documents are converted on the event loop: in less time than handing them to a thread and back takes.
CONVERTED_AT_ONCE_BYTES = 64 * 1024

Result = TypeVar("Result")


class Inference:
    """Runs signatures in the threads of `executor`, and gives up waiting for them at the caller's deadline."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def run(
        self,
        served: ModelInUse,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        output_filter: Sequence[str] = (),
        timeout_seconds: float | None = None,
    ) -> dict[str, np.ndarray]:
        """The outputs of one signature, as `run_signature` gives them.

        Raises:
            ServingError: as `run_signature`; DEADLINE_EXCEEDED after the time-out. The model then stays loaded until
                the graph, which is told to stop, has stopped.
        """
        work = self._executor.submit(run_signature, served.model, signature, inputs, output_filter, timeout_seconds)
        loop = asyncio.get_running_loop()
        hold = served.hold()
        hold.__enter__()
        work.add_done_callback(lambda _: loop.call_soon_threadsafe(hold.__exit__, None, None, None))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(work), timeout_seconds)
        except TimeoutError:
            raise ServingError(CanonicalCode.DEADLINE_EXCEEDED, "Timed out waiting for notification") from None

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
