"""All models of a server, and which version a request means."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from tensorflow_serving.apis import model_pb2

from serving.client.canonical_code import CanonicalCode
from serving.server.load_policy import LoadPolicy
from serving.server.served_model import ServedModel, ServedVersion
from serving.server.serving_error import ServingError, invalid_argument
from serving.session_model import SessionModel


@dataclass(frozen=True)
class ModelInUse:
    """A version that stays loaded while a request uses it."""

    name: str
    number: int
    model: SessionModel
    hold: Callable[[], AbstractContextManager[SessionModel]]  # keeps it loaded for longer than the block


class ModelManager:
    """Models by name, each with its base path; for the event loop's own thread only."""

    def __init__(self, base_paths: Mapping[str, str], policy: LoadPolicy) -> None:
        self._models = {name: ServedModel(name, path, policy) for name, path in base_paths.items()}
        self._polling: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to poll the base paths."""
        self._polling = [asyncio.create_task(model.poll_forever()) for model in self._models.values()]

    async def wait_until_settled(self) -> None:
        """Return when every model has an available version, or one that has failed for good."""
        await asyncio.gather(*(model.wait_until_settled() for model in self._models.values()))

    async def close(self) -> None:
        """Stop polling and unload everything, once the requests in flight are done."""
        for task in self._polling:
            task.cancel()
        await asyncio.gather(*self._polling, return_exceptions=True)
        await asyncio.gather(*(model.close() for model in self._models.values()))

    @contextmanager
    def use(self, spec: model_pb2.ModelSpec) -> Iterator[ModelInUse]:
        """The version that a ModelSpec means, which is not unloaded before the end of the block.

        Raises:
            ServingError: NOT_FOUND, no such version is available; INVALID_ARGUMENT, no name or an unknown label.
        """
        version = self._find(spec)
        with version.use() as model:
            yield ModelInUse(spec.name, version.number, model, version.use)

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

    def _find(self, spec: model_pb2.ModelSpec) -> ServedVersion:
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        if spec.HasField("version_label"):
            raise invalid_argument(f"Unrecognized servable version label: {spec.version_label}")
        number = spec.version.value if spec.HasField("version") else None
        model = self._models.get(spec.name)
        version = model.version(number) if model is not None else None
        if version is None:
            meant = f"Latest({spec.name})" if number is None else f"Specific({spec.name}, {number})"
            raise ServingError(CanonicalCode.NOT_FOUND, f"Servable not found for request: {meant}")
        return version
