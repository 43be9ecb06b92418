"""The models of a server: their versions come, are swapped, and go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2
from tensorflow_serving.config import model_server_config_pb2

from serving import model_store
from serving.client.errors import CanonicalCode
from serving.model_store import ModelStoreError
from serving.server.config import (
    ConfigFileError,
    LoadPolicy,
    ModelConfig,
    RequestLogOptions,
    model_configs,
    read_text_proto,
)
from serving.server.errors import ServingError, invalid_argument
from serving.server.versions import BasePathMissingError, ServedVersion, VersionState, load_version, version_paths
from serving.session_model import SessionModel


@dataclass(frozen=True)
class ModelInUse:
    """A version that stays loaded while a request uses it.

    Attributes:
        name: the model's name.
        model: its signatures, and the session behind them.
        version: keeps the model loaded for longer, where work on it goes on.
    """

    name: str
    model: SessionModel
    version: ServedVersion

    @property
    def number(self) -> int:
        """The version."""
        return self.version.number


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
        """Return when at least one version is wanted, and each one is available or has failed, once or for good."""
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
                model = await asyncio.to_thread(load_version, version.path, self._policy, self._config.roots)
            except Exception as unforeseen:
                error = _as_serving_error(unforeseen)
                version.state, version.code = VersionState.END, error.code
                # The log is the operator's; the status is anybody's, and tells nothing of the file system.
                version.message = error.message.replace(version.path, f"{self.name}/{version.number}")
                logger.error("%s version %d cannot be loaded: %s", self.name, version.number, error.message)
                if not self._policy.wait_for_models:
                    version.tried = True
                    self._note_if_settled()
                continue
            if version.unwanted.is_set():
                await asyncio.to_thread(model.close)
                version.state, version.code = VersionState.END, CanonicalCode.CANCELLED
                version.message = "Loading of servable cancelled"
                return
            version.model, version.state = model, VersionState.AVAILABLE
            version.code, version.message = CanonicalCode.OK, ""
            logger.info("%s version %d is available", self.name, version.number)
            kinds = ", ".join(sorted(model.operations.kinds))
            logger.debug("%s version %d runs these operations: %s", self.name, version.number, kinds)
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


class ModelManager:
    """Models by name, which come and go with the config; for the event loop's own thread only.

    Args:
        load_policy: how base paths are polled and loads are retried.
        labels_may_wait: whether a config may give a label that is not in use to a version that is not available.
    """

    def __init__(self, load_policy: LoadPolicy, labels_may_wait: bool = False) -> None:
        self._load_policy = load_policy
        self._labels_may_wait = labels_may_wait
        self._models: dict[str, ServedModel] = {}
        self._configured: set[str] | None = None

    async def reload(self, configs: Iterable[ModelConfig]) -> None:
        """Serve exactly these models; returns when the new ones have settled, the change of the others goes on.

        Raises:
            ServingError: FAILED_PRECONDITION, as `configure`; UNKNOWN, a new model did not become available, everything
                else is done.
        """
        new = self.configure(configs)
        await asyncio.gather(*(model.wait_until_settled() for model in new))
        _check_available(new)

    def configure(self, configs: Iterable[ModelConfig]) -> list[ServedModel]:
        """Begin to serve exactly these models; returns those that were not served before.

        Raises:
            ServingError: FAILED_PRECONDITION, a label is given to a version that is not available, nothing has changed
                then.
        """
        wanted = {config.name: config for config in configs}
        for config in wanted.values():
            self._check_labels(config)
        configured = self._configured or set()
        new = sorted(wanted.keys() - configured)
        for name in configured - wanted.keys():
            self._models[name].stop()
        for config in wanted.values():
            model = self._models.setdefault(config.name, ServedModel(config, self._load_policy))
            model.start(config)
        self._configured = set(wanted)
        return [self._models[name] for name in new]

    async def close(self) -> None:
        """Unload everything, once the requests in flight are done."""
        for model in self._models.values():
            model.stop()
        await asyncio.gather(*(model.wait_until_unloaded() for model in self._models.values()))

    @contextmanager
    def use(self, spec: model_pb2.ModelSpec) -> Iterator[ModelInUse]:
        """The version that a ModelSpec means, which is not unloaded before the end of the block.

        Raises:
            ServingError: NOT_FOUND, no such version is available; INVALID_ARGUMENT, no name or an unknown label.
        """
        version = self._find(spec)
        with version.use() as model:
            yield ModelInUse(spec.name, model, version)

    def status(self, spec: model_pb2.ModelSpec) -> list[ServedVersion]:
        """The versions of a model, highest first, or the one that the spec names.

        Raises:
            ServingError: NOT_FOUND, no such model or version was ever seen.
        """
        versions = self._models[spec.name].versions if spec.name in self._models else []
        if spec.HasField("version"):
            number = spec.version.value
            versions = [version for version in versions if version.number == number]
            if not versions:
                raise ServingError(CanonicalCode.NOT_FOUND, f"Could not find version {number} of model {spec.name}")
        if not versions:
            raise ServingError(CanonicalCode.NOT_FOUND, f"Could not find any versions of model {spec.name}")
        return versions

    @property
    def has_config(self) -> bool:
        """Whether it was ever told what to serve, be it nothing."""
        return self._configured is not None

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """Every model that is or was served, by name."""
        return self._models

    def _check_labels(self, config: ModelConfig) -> None:
        model = self._models.get(config.name)
        for label, number in (config.labels or {}).items():
            if model is not None and model.available(number):
                continue
            in_use = model is not None and model.labels.get(label, number) != number
            if in_use or not self._labels_may_wait:
                raise ServingError(
                    CanonicalCode.FAILED_PRECONDITION,
                    f"Request to assign label to version {number} of model {config.name}, which is not currently "
                    "available for inference",
                )

    def _find(self, spec: model_pb2.ModelSpec) -> ServedVersion:
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        model = self._models.get(spec.name)
        number = spec.version.value if spec.HasField("version") else None
        if spec.HasField("version_label"):
            if model is None or spec.version_label not in model.labels:
                raise invalid_argument(f"Unrecognized servable version label: {spec.version_label}")
            number = model.labels[spec.version_label]
        version = model.available(number) if model is not None else None
        if version is None:
            meant = f"Latest({spec.name})" if number is None else f"Specific({spec.name}, {number})"
            raise ServingError(CanonicalCode.NOT_FOUND, f"Servable not found for request: {meant}")
        return version


def _check_available(models: Iterable[ServedModel]) -> None:
    failed = [model for model in models if model.available(None) is None]
    if not failed:
        return
    reasons = []
    for model in failed:
        for version in model.versions:
            if version.state is not VersionState.AVAILABLE:
                error = f" due to error: {version.code.name}: {version.message}" if version.message else ""
                reasons.append(f"{{{{name: {model.name} version: {version.number}}}{error}}}, ")
    raise ServingError(
        CanonicalCode.UNKNOWN, f"{len(failed)} model(s) did not become available: {{{''.join(reasons)}}}"
    )


SIGNATURE_FIELD = "signature_def"


def model_status(manager: ModelManager, spec: model_pb2.ModelSpec) -> get_model_status_pb2.GetModelStatusResponse:
    """The state of every version of a model, or of the one that the spec names.

    Raises:
        ServingError: NOT_FOUND, no such model or version was ever seen.
    """
    response = get_model_status_pb2.GetModelStatusResponse()
    for version in manager.status(spec):
        entry = response.model_version_status.add(version=version.number, state=int(version.state))
        entry.status.error_code = int(version.code)
        entry.status.error_message = version.message
    return response


def model_metadata(
    manager: ModelManager, request: get_model_metadata_pb2.GetModelMetadataRequest
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """The signatures of a model.

    Raises:
        ServingError: INVALID_ARGUMENT, another field than "signature_def" or none; NOT_FOUND, no such model.
    """
    if not request.metadata_field:
        raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
    for metadata_field in request.metadata_field:
        if metadata_field != SIGNATURE_FIELD:
            raise invalid_argument(f"Metadata field {metadata_field} is not supported")
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    signatures = get_model_metadata_pb2.SignatureDefMap()
    with manager.use(request.model_spec) as served:
        response.model_spec.name = served.name
        response.model_spec.version.value = served.number
        for name, signature in served.model.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
    response.metadata[SIGNATURE_FIELD].Pack(signatures)
    return response


_NO_TRANSITION = (
    "Cannot transition to requested config. It is only legal to transition from one ModelConfigList to another."
)


def read_model_config_file(path: str) -> list[ModelConfig] | None:
    """The models of a text file of tensorflow.serving.ModelServerConfig; None where it holds no config at all.

    An empty list of models is a config; an empty file, such as one that is just being written, is none.

    Raises:
        ConfigFileError: the file cannot be read, is no such text, or lists what cannot be served.
    """
    try:
        server_config = read_text_proto(path, model_server_config_pb2.ModelServerConfig())
        return model_configs(server_config) if server_config.WhichOneof("config") else None
    except ServingError as error:
        raise ConfigFileError(f"{path}: {error.message}") from error


async def poll_model_config_file(path: str, seconds: float, manager: ModelManager) -> None:
    """Serve what the file lists, as often as it changes; what is wrong with it is logged, and changes nothing."""
    reported = ""
    while True:
        await asyncio.sleep(seconds)
        trouble = ""
        try:
            configs = await asyncio.to_thread(read_model_config_file, path)
            if configs is not None:
                manager.configure(configs)
            elif manager.has_config:
                trouble = f"{path} is empty. {_NO_TRANSITION}"
        except ConfigFileError as error:
            trouble = str(error)
        except ServingError as error:
            trouble = f"{path}: {error.message}"
        if trouble and trouble != reported:
            logger.error("the models stay as they were: %s", trouble)
        reported = trouble
