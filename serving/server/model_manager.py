"""All models of a server, and which version a request means."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from tensorflow_serving.apis import model_pb2

from serving.client.canonical_code import CanonicalCode
from serving.server.load_policy import LoadPolicy
from serving.server.model_config import ModelConfig
from serving.server.model_in_use import ModelInUse
from serving.server.served_model import ServedModel
from serving.server.served_version import ServedVersion, VersionState
from serving.server.serving_error import ServingError, invalid_argument


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
