"""One model base path while it is served: its versions come, are swapped, and go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping

from serving import model_store
from serving.client.canonical_code import CanonicalCode
from serving.model_store import ModelStoreError
from serving.server.load_policy import LoadPolicy
from serving.server.load_version import load_version
from serving.server.model_config import ModelConfig
from serving.server.request_log_options import RequestLogOptions
from serving.server.served_version import ServedVersion, VersionState
from serving.server.serving_error import ServingError
from serving.server.version_paths import BasePathMissingError, version_paths

# Of versions that are gone, the status names so many; without an end a server would grow with every publication.
REMEMBERED_VERSIONS = 100

_COMING_OR_THERE = (VersionState.START, VersionState.LOADING, VersionState.AVAILABLE)

logger = logging.getLogger(__name__)


class ServedModel:
    """The versions of one base path. Its methods run on the event loop; loading and unloading run in threads."""

    def __init__(self, config: ModelConfig, policy: LoadPolicy) -> None:
        self._config = config
        self._policy = policy
        self._versions: dict[int, ServedVersion] = {}
        self._labels: dict[str, int] = {}
        self._published_labels: Mapping[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._polling: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._last_trouble = ""

    @property
    def name(self) -> str:
        """What requests call the model."""
        return self._config.name

    @property
    def request_log(self) -> RequestLogOptions | None:
        """Where its requests are logged, if they are."""
        return self._config.request_log

    @property
    def versions(self) -> list[ServedVersion]:
        """The versions that were seen, highest first."""
        return [self._versions[number] for number in sorted(self._versions, reverse=True)]

    @property
    def labels(self) -> Mapping[str, int]:
        """The version that each label means now."""
        return self._labels

    def available(self, number: int | None) -> ServedVersion | None:
        """The available version of that number, or the highest available one."""
        if number is None:
            return next((version for version in self.versions if version.state is VersionState.AVAILABLE), None)
        version = self._versions.get(number)
        return version if version is not None and version.state is VersionState.AVAILABLE else None

    def start(self, config: ModelConfig) -> None:
        """Begin to serve, or go on with another config."""
        if self._polling is not None and config == self._config:
            return
        if config.base_path != self._config.base_path:
            self._published_labels = {}
        self._config = config
        if config.labels is not None:
            self._labels = dict(config.labels)
        if self._polling is None:
            self._settled = asyncio.Event()
        else:
            self._polling.cancel()
        self._polling = asyncio.create_task(self._poll_forever())

    def stop(self) -> None:
        """Begin to unload everything, each version once the requests in flight are done."""
        if self._polling is not None:
            self._polling.cancel()
            self._polling = None
        self._labels = {}
        self._want({})
        self._settled.set()  # nobody needs to wait any longer

    async def wait_until_settled(self) -> None:
        """Return when at least one version is wanted, and each one is available or has failed for good."""
        await self._settled.wait()

    async def wait_until_unloaded(self) -> None:
        """Return when nothing is loaded or being loaded any more, after `stop`."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _poll_forever(self) -> None:
        while True:
            try:
                await self._poll()
            except Exception:  # else the model would never change again
                logger.exception("%s: the base path could not be looked at", self.name)
            if not self._policy.poll_seconds:
                return
            await asyncio.sleep(self._policy.poll_seconds)

    async def _poll(self) -> None:
        base_path = self._config.base_path
        try:
            paths = await asyncio.to_thread(version_paths, base_path)
            if self._config.labels is None:
                self._published_labels = await asyncio.to_thread(model_store.labels, base_path)
        except (BasePathMissingError, ModelStoreError) as error:
            self._report(f"{error}; what is loaded stays loaded, and the path is looked at again")
            return
        if self._config.labels is None:
            self._move_published_labels()
        numbers = self._config.policy.choose(paths)
        if self._config.labels is None:
            numbers |= {*self._published_labels.values(), *self._labels.values()} & paths.keys()
        self._report(self._trouble(paths, numbers))
        self._want({number: paths[number] for number in numbers})

    def _trouble(self, paths: Mapping[int, str], numbers: set[int]) -> str:
        """What an operator should hear of what was found in the base path; "" where all is well."""
        base_path = self._config.base_path
        if not paths:
            return (
                f"{base_path} holds no version yet: a version is a directory named by a number, "
                f"such as {base_path}/1, with the SavedModel directly in it"
            )
        missing = sorted({*self._config.policy.specific, *self._published_labels.values()} - paths.keys())
        return f"{base_path} has no version {', '.join(map(str, missing))}, which is asked for" if missing else ""

    def _move_published_labels(self) -> None:
        """Let each label mean its new version once that is available, and the old one until then."""
        for label in [*self._labels]:
            if label not in self._published_labels:
                del self._labels[label]
        for label, number in self._published_labels.items():
            if label not in self._labels or self.available(number) or not self.available(self._labels[label]):
                self._labels[label] = number

    def _want(self, wanted: dict[int, str]) -> None:
        for version in self._versions.values():
            if version.number not in wanted:
                version.unwanted.set()
        for number, path in wanted.items():
            known = self._versions.get(number)
            if known is not None and (known.state in _COMING_OR_THERE or not known.unwanted.is_set()):
                known.unwanted.clear()
            else:
                self._versions[number] = ServedVersion(number, path)
                self._start(self._load(self._versions[number]))
        self._forget_the_oldest()
        self._note_if_settled()
        self._retire_unwanted()

    async def _load(self, version: ServedVersion) -> None:
        for attempt in range(self._policy.load_retries + 1):
            if attempt and await _is_set_within(version.unwanted, self._policy.load_retry_seconds):
                return
            version.state = VersionState.LOADING
            try:
                model = await asyncio.to_thread(load_version, version.path)
            except Exception as unforeseen:
                error = _as_serving_error(unforeseen)
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
        version.tried = True
        if self._config.labels is None:
            self._move_published_labels()
        self._note_if_settled()
        self._retire_unwanted()

    def _note_if_settled(self) -> None:
        wanted = self._wanted()
        if wanted and all(version.tried for version in wanted):
            self._settled.set()

    def _wanted(self) -> list[ServedVersion]:
        return [version for version in self._versions.values() if not version.unwanted.is_set()]

    def _retire_unwanted(self) -> None:
        """Unload what is not wanted, but the last available version only when nothing is wanted any more."""
        wanted = self._wanted()
        if wanted and not any(version.state is VersionState.AVAILABLE for version in wanted):
            return
        for version in self._versions.values():
            if version.state is VersionState.AVAILABLE and version.unwanted.is_set():
                version.state = VersionState.UNLOADING
                self._start(self._unload(version))

    async def _unload(self, version: ServedVersion) -> None:
        await version.wait_until_idle()
        model, version.model = version.model, None
        if model is not None:
            await asyncio.to_thread(model.close)
        version.state = VersionState.END
        logger.info("%s version %d is unloaded", self.name, version.number)

    def _forget_the_oldest(self) -> None:
        gone = [
            version.number
            for version in self.versions
            if version.state is VersionState.END and version.unwanted.is_set()
        ]
        for number in gone[REMEMBERED_VERSIONS:]:
            del self._versions[number]

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _report(self, trouble: str) -> None:
        if trouble and trouble != self._last_trouble:
            logger.warning("%s: %s", self.name, trouble)
        self._last_trouble = trouble


def _as_serving_error(error: Exception) -> ServingError:
    if isinstance(error, ServingError):
        return error
    logger.error("a version cannot be loaded", exc_info=error)
    return ServingError(CanonicalCode.INTERNAL, "Internal error; the server's log says more.")


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
