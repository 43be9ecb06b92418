"""A model server's REST port, for asyncio."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import aiohttp
from yarl import URL

from serving.client.canonical_code import CanonicalCode
from serving.client.client_tls import ClientTls
from serving.client.model_metadata import ModelMetadata
from serving.client.prediction_error import PredictionError
from serving.client.rest_protocol import (
    HEADERS,
    model_path,
    predict_body,
    read_answer,
    read_metadata,
    read_outputs,
    read_status,
)
from serving.client.retry_policy import RetryPolicy
from serving.client.version_status import VersionStatus


class AsyncRestClient:
    """RestClient with coroutines, of which many may run at a time.

    async with AsyncRestClient() as client:
        await asyncio.gather(*(client.predict("heart", row) for row in rows))

    Args and Raises: as for RestClient.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8501,
        timeout_seconds: float = 30.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008
        tls: ClientTls | None = None,
    ) -> None:
        self._address = f"{'http' if tls is None else 'https'}://{host}:{port}"
        self._timeout_seconds = timeout_seconds
        self._retry = retry
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._known: dict[str, ModelMetadata] = {}

    async def predict(
        self,
        name: str,
        inputs: Mapping[str, Any],
        signature: str = "serving_default",
        version: int | None = None,
        label: str | None = None,
    ) -> dict[str, Any]:
        """As RestClient.predict."""
        path = model_path(name, version, label)
        known = self._known.get(path)
        if known is None or signature not in known.signatures:
            known = self._known[path] = await self.metadata(name, version, label)
        answer = await self._request("POST", f"{path}:predict", predict_body(inputs, signature))
        return read_outputs(answer, known, signature)

    async def metadata(self, name: str, version: int | None = None, label: str | None = None) -> ModelMetadata:
        """The signatures of a model."""
        return read_metadata(await self._request("GET", f"{model_path(name, version, label)}/metadata"))

    async def status(self, name: str, version: int | None = None) -> list[VersionStatus]:
        """The state of a model's versions, highest first."""
        return read_status(await self._request("GET", model_path(name, version, None)))

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def __aenter__(self) -> AsyncRestClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _request(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        return await self._retry.call_async(lambda: self._request_once(method, path, body))

    async def _request_once(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        url = URL(self._address + path, encoded=True)
        try:
            async with self._opened().request(method, url, data=body, headers=HEADERS) as response:
                status, content = response.status, await response.read()
        except TimeoutError as error:
            message = f"no answer from {self._address} within {self._timeout_seconds:g} s"
            raise PredictionError(CanonicalCode.DEADLINE_EXCEEDED, message) from error
        except aiohttp.ClientError as error:
            raise PredictionError(CanonicalCode.UNAVAILABLE, f"no server answers at {self._address} (REST)") from error
        return read_answer(status, content, self._address + path)

    def _opened(self) -> aiohttp.ClientSession:
        # Only inside a running event loop, which there need not be where the client is made.
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls.ssl_context() if self._tls is not None else True),
                timeout=aiohttp.ClientTimeout(total=self._timeout_seconds),
            )
        return self._session
