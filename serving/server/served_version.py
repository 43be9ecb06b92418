"""One version of a model, from its first sight to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from serving.client.canonical_code import CanonicalCode
from serving.session_model import SessionModel


class VersionState(IntEnum):
    """The states of tensorflow.serving.ModelVersionStatus, with its numbers."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(eq=False)
class ServedVersion:
    """A version that is, was or is to be served; for the event loop's own thread only.

    Attributes:
        requests: how many use the model.
        tried: whether it has been available, or its load has failed for good.
        unwanted: set when it is to go.
    """

    number: int
    path: str
    state: VersionState = VersionState.START
    code: CanonicalCode = CanonicalCode.OK
    message: str = ""
    model: SessionModel | None = None
    tried: bool = False
    unwanted: asyncio.Event = field(default_factory=asyncio.Event)
    requests: int = 0
    _users: int = 0  # requests, and work in threads that nobody may wait for any longer
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def use(self) -> Iterator[SessionModel]:
        """The model, which is not closed before the end of the block."""
        assert self.model is not None
        self._users += 1
        self.requests += 1
        try:
            yield self.model
        finally:
            self.requests -= 1
            self._release()

    def start(self, executor: Executor, work: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """Call `work(*arguments)` in a thread; the model is not closed before it is done, whoever waits for it.

        Whoever waits may cancel the future; the thread goes on. Not `run_in_executor`, whose result goes through three
        turns of the event loop with the shield that this would need.
        """
        loop = asyncio.get_running_loop()
        answer = loop.create_future()

        def call() -> None:
            try:
                result = work(*arguments)
            except BaseException as error:
                loop.call_soon_threadsafe(self._deliver, answer, None, error)
            else:
                loop.call_soon_threadsafe(self._deliver, answer, result, None)

        executor.submit(call)
        self._users += 1
        return answer

    async def wait_until_idle(self) -> None:
        """Return when nobody uses the model any more."""
        while self._users:
            self._idle.clear()
            await self._idle.wait()

    def _deliver(self, answer: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        self._release()
        if answer.done():  # whoever has waited has gone
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)

    def _release(self) -> None:
        self._users -= 1
        self._idle.set()
