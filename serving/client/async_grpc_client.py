"""A model server's gRPC port, for asyncio."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import grpc
import numpy as np

from serving.client.client_tls import ClientTls
from serving.client.grpc_protocol import (
    CHANNEL_OPTIONS,
    channel_target,
    check_signature,
    grpc_method,
    metadata_request,
    predict_request,
    read_metadata,
    read_outputs,
    read_status,
    refusal,
    status_request,
)
from serving.client.model_metadata import ModelMetadata
from serving.client.prediction_error import PredictionError
from serving.client.retry_policy import RetryPolicy
from serving.client.version_status import VersionStatus


class AsyncGrpcClient:
    """GrpcClient with coroutines, of which many may run at a time.

    async with AsyncGrpcClient() as client:
        await asyncio.gather(*(client.predict("heart", row) for row in rows))

    Args and Raises: as for GrpcClient.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8500,
        timeout_seconds: float = 30.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008
        tls: ClientTls | None = None,
    ) -> None:
        self._target = channel_target(host, port)
        self._timeout_seconds = timeout_seconds
        self._retry = retry
        self._tls = tls
        self._channel: grpc.aio.Channel | None = None
        self._methods: dict[str, Any] = {}
        self._known: dict[tuple[str, int | None, str | None], ModelMetadata] = {}

    async def predict(
        self,
        name: str,
        inputs: Mapping[str, Any],
        signature: str = "serving_default",
        version: int | None = None,
        label: str | None = None,
    ) -> dict[str, np.ndarray]:
        """As GrpcClient.predict."""
        meant = (name, version, label)
        known = self._known.get(meant)
        if known is None or signature not in known.signatures:
            known = self._known[meant] = await self.metadata(*meant)
        check_signature(known, name, signature)
        request = predict_request(name, inputs, signature, version, label, known)
        try:
            response = await self._call("PredictionService/Predict", request)
        except PredictionError:
            self._known.pop(meant, None)  # it may come of a newer version with other inputs
            raise
        if response.model_spec.version.value != known.version:
            self._known.pop(meant, None)
        return read_outputs(response)

    async def metadata(self, name: str, version: int | None = None, label: str | None = None) -> ModelMetadata:
        """The signatures of a model."""
        request = metadata_request(name, version, label)
        return read_metadata(await self._call("PredictionService/GetModelMetadata", request))

    async def status(self, name: str, version: int | None = None) -> list[VersionStatus]:
        """The state of a model's versions, highest first."""
        return read_status(await self._call("ModelService/GetModelStatus", status_request(name, version)))

    async def close(self) -> None:
        """Close the connection."""
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> AsyncGrpcClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, method: str, request: Any) -> Any:
        ask = self._methods.get(method) or self._methods.setdefault(method, grpc_method(self._opened(), method))

        async def once() -> Any:
            try:
                return await ask(request, timeout=self._timeout_seconds)
            except grpc.RpcError as error:
                raise refusal(error, self._target) from error

        return await self._retry.call_async(once)

    def _opened(self) -> grpc.aio.Channel:
        # Only inside a running event loop, which there need not be where the client is made.
        if self._channel is None:
            self._channel = (
                grpc.aio.insecure_channel(self._target, CHANNEL_OPTIONS)
                if self._tls is None
                else grpc.aio.secure_channel(self._target, self._tls.channel_credentials(), CHANNEL_OPTIONS)
            )
        return self._channel
