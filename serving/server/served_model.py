"""One model base path while it is served: its versions come, are swapped, and go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum

from serving.client.canonical_code import CanonicalCode
from serving.server.latest_version import BasePathMissingError, latest_version
from serving.server.load_policy import LoadPolicy
from serving.server.load_version import load_version
from serving.server.serving_error import ServingError
from serving.session_model import SessionModel

logger = logging.getLogger(__name__)


class VersionState(IntEnum):
    """The states of tensorflow.serving.ModelVersionStatus, with its numbers."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(eq=False)
class ServedVersion:
    """A version that is, was or is to be served."""

    number: int
    path: str
    state: VersionState = VersionState.START
    code: CanonicalCode = CanonicalCode.OK
    message: str = ""
    model: SessionModel | None = None
    unwanted: asyncio.Event = field(default_factory=asyncio.Event)
    in_flight: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def use(self) -> Iterator[SessionModel]:
        """The model, which is not closed before the end of the block. Only for the event loop's own thread."""
        assert self.model is not None
        self.in_flight += 1
        self.idle.clear()
        try:
            yield self.model
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self.idle.set()


class ServedModel:
    """The versions of one base path. Its methods run on the event loop; loading and unloading run in threads."""

    def __init__(self, name: str, base_path: str, policy: LoadPolicy) -> None:
        self.name = name
        self.base_path = base_path
        self._policy = policy
        self._versions: dict[int, ServedVersion] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._settled = asyncio.Event()
        self._last_trouble = ""

    @property
    def versions(self) -> list[ServedVersion]:
        """Every version that was ever seen, highest first."""
        return [self._versions[number] for number in sorted(self._versions, reverse=True)]

    def version(self, number: int | None) -> ServedVersion | None:
        """The available version of that number, or the highest available one."""
        available = [version for version in self.versions if version.state is VersionState.AVAILABLE]
        return next((version for version in available if number in (None, version.number)), None)

    async def wait_until_settled(self) -> None:
        """Return when a version is available, or the wanted one has failed for good."""
        await self._settled.wait()

    async def poll_forever(self) -> None:
        """Look at the base path every `poll_seconds`; once only where that is 0."""
        while True:
            await self.poll()
            if not self._policy.poll_seconds:
                return
            await asyncio.sleep(self._policy.poll_seconds)

    async def poll(self) -> None:
        """Look at the base path once, and start what has to change."""
        try:
            wanted = await asyncio.to_thread(latest_version, self.base_path)
        except BasePathMissingError as error:
            self._report(f"{error}; what is loaded stays loaded, and the path is looked at again")
            return
        self._report(
            ""
            if wanted
            else f"{self.base_path} holds no version yet: a version is a directory named by a number, "
            f"such as {self.base_path}/1, with the SavedModel directly in it"
        )
        self._want(wanted)

    async def close(self) -> None:
        """Unload everything, once the requests in flight are done."""
        self._want({})
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _want(self, wanted: dict[int, str]) -> None:
        for version in self._versions.values():
            if version.number not in wanted:
                version.unwanted.set()
        for number, path in wanted.items():
            known = self._versions.get(number)
            if known is not None and (known.state is VersionState.AVAILABLE or not known.unwanted.is_set()):
                known.unwanted.clear()
            else:
                self._versions[number] = ServedVersion(number, path)
                self._start(self._load(self._versions[number]))
        self._retire_unwanted()

    async def _load(self, version: ServedVersion) -> None:
        for attempt in range(self._policy.load_retries + 1):
            if attempt and await _is_set_within(version.unwanted, self._policy.load_retry_seconds):
                return
            version.state = VersionState.LOADING
            try:
                model = await asyncio.to_thread(load_version, version.path)
            except ServingError as error:
                version.state, version.code = VersionState.END, error.code
                # The log is the operator's; the status is anybody's, and tells nothing of the file system.
                version.message = error.message.replace(version.path, f"{self.name}/{version.number}")
                logger.error("%s version %d cannot be loaded: %s", self.name, version.number, error.message)
                continue
            if version.unwanted.is_set():
                await asyncio.to_thread(model.close)
                version.state, version.code = VersionState.END, CanonicalCode.CANCELLED
                version.message = "Loading of servable cancelled"
                return
            version.model, version.state = model, VersionState.AVAILABLE
            version.code, version.message = CanonicalCode.OK, ""
            logger.info("%s version %d is available", self.name, version.number)
            break
        self._settled.set()
        self._retire_unwanted()

    def _retire_unwanted(self) -> None:
        """Unload what is not wanted, but the last available version only when nothing is wanted any more."""
        wanted = [version for version in self._versions.values() if not version.unwanted.is_set()]
        if wanted and not any(version.state is VersionState.AVAILABLE for version in wanted):
            return
        for version in self._versions.values():
            if version.state is VersionState.AVAILABLE and version.unwanted.is_set():
                version.state = VersionState.UNLOADING
                self._start(self._unload(version))

    async def _unload(self, version: ServedVersion) -> None:
        model, version.model = version.model, None
        if version.in_flight:
            await version.idle.wait()
        if model is not None:
            await asyncio.to_thread(model.close)
        version.state = VersionState.END
        logger.info("%s version %d is unloaded", self.name, version.number)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _report(self, trouble: str) -> None:
        if trouble and trouble != self._last_trouble:
            logger.warning("%s: %s", self.name, trouble)
        self._last_trouble = trouble


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
