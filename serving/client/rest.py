"""REST clients of a model server, synchronous and for asyncio."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx
import orjson
from google.protobuf import json_format

from serving.client.connection import ClientTls, RetryPolicy
from serving.client.errors import CanonicalCode, PredictionError
from serving.client.messages_pb2 import GetModelStatusResponse, PredictRequest, SignatureDefMap
from serving.client.metadata import ModelMetadata, VersionStatus

_HEADERS = {"Content-Type": "application/json"}
# A connection is kept until the server closes it; httpx would close it after 5 s.
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=100, keepalive_expiry=None)
_BYTES_SUFFIX = "_bytes"  # string outputs of such a name come as {"b64": "…"}
_OK = 200


class RestClient:
    """Asks TensorFlow Serving, or `ingraph serve`, over REST; for one thread at a time.

        with RestClient() as client:
            client.predict("heart", {"age": [63], "thal": ["fixed"], ...})

    Args:
        host: the server's name or address.
        port: its REST port.
        timeout_seconds: of every attempt.
        retry: how a request is repeated that was answered with UNAVAILABLE, or not at all.
        tls: for an encrypted port.

    Raises:
        PredictionError: by every method, with the server's code and message; UNAVAILABLE where there is no server.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8501,
        timeout_seconds: float = 30.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008
        tls: ClientTls | None = None,
    ) -> None:
        self._address = _address(host, port, tls)
        self._timeout_seconds = timeout_seconds
        self._retry = retry
        self._client = httpx.Client(**_options(timeout_seconds, tls))
        self._known: dict[str, ModelMetadata] = {}

    def predict(
        self,
        name: str,
        inputs: Mapping[str, Any],
        signature: str = "serving_default",
        version: int | None = None,
        label: str | None = None,
    ) -> dict[str, Any]:
        """The outputs of one request, by name: nested lists; strings as str, those of outputs "…_bytes" as bytes.

        Args:
            name: the model's name.
            inputs: by name, a value, a nested list or an array; bytes are sent as {"b64": …}.
            signature: which signature.
            version: which version; the newest where it and `label` are None.
            label: which version, by its label, such as "stable".
        """
        path = _model_path(name, version, label)
        known = self._known.get(path)
        if known is None or signature not in known.signatures:
            known = self._known[path] = self.metadata(name, version, label)
        # The server itself refuses a signature that the model does not have.
        answer = self._request("POST", f"{path}:predict", _predict_body(inputs, signature))
        return _read_outputs(answer, known, signature)

    def metadata(self, name: str, version: int | None = None, label: str | None = None) -> ModelMetadata:
        """The signatures of a model."""
        return _read_metadata(self._request("GET", f"{_model_path(name, version, label)}/metadata"))

    def status(self, name: str, version: int | None = None) -> list[VersionStatus]:
        """The state of a model's versions, highest first."""
        return _read_status(self._request("GET", _model_path(name, version, None)))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> RestClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _request(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        return self._retry.call(lambda: self._request_once(method, path, body))

    def _request_once(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        try:
            response = self._client.request(method, self._address + path, content=body, headers=_HEADERS)
        except httpx.TimeoutException as error:
            raise _no_answer(self._address, self._timeout_seconds) from error
        except httpx.RequestError as error:
            raise _no_server(self._address) from error
        return _read_answer(response.status_code, response.content, self._address + path)


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
        self._address = _address(host, port, tls)
        self._timeout_seconds = timeout_seconds
        self._retry = retry
        self._client = httpx.AsyncClient(**_options(timeout_seconds, tls))
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
        path = _model_path(name, version, label)
        known = self._known.get(path)
        if known is None or signature not in known.signatures:
            known = self._known[path] = await self.metadata(name, version, label)
        answer = await self._request("POST", f"{path}:predict", _predict_body(inputs, signature))
        return _read_outputs(answer, known, signature)

    async def metadata(self, name: str, version: int | None = None, label: str | None = None) -> ModelMetadata:
        """The signatures of a model."""
        return _read_metadata(await self._request("GET", f"{_model_path(name, version, label)}/metadata"))

    async def status(self, name: str, version: int | None = None) -> list[VersionStatus]:
        """The state of a model's versions, highest first."""
        return _read_status(await self._request("GET", _model_path(name, version, None)))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> AsyncRestClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _request(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        return await self._retry.call_async(lambda: self._request_once(method, path, body))

    async def _request_once(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                response = await self._client.request(method, self._address + path, content=body, headers=_HEADERS)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise _no_answer(self._address, self._timeout_seconds) from error
        except httpx.RequestError as error:
            raise _no_server(self._address) from error
        return _read_answer(response.status_code, response.content, self._address + path)


def _address(host: str, port: int, tls: ClientTls | None) -> str:
    return f"{'http' if tls is None else 'https'}://{host}:{port}"


def _options(timeout_seconds: float, tls: ClientTls | None) -> dict[str, Any]:
    return {
        "timeout": timeout_seconds,
        "limits": _LIMITS,
        "follow_redirects": True,  # by a gateway before the server
        "trust_env": False,  # a model server is not behind the proxy of a browser
        "verify": False if tls is None else tls.ssl_context(),
    }


def _no_answer(address: str, timeout_seconds: float) -> PredictionError:
    message = f"no answer from {address} within {timeout_seconds:g} s"
    return PredictionError(CanonicalCode.DEADLINE_EXCEEDED, message)


def _no_server(address: str) -> PredictionError:
    return PredictionError(CanonicalCode.UNAVAILABLE, f"no server answers at {address} (REST)")


def _model_path(name: str, version: int | None, label: str | None) -> str:
    """The path of a model's status; ":predict" or "/metadata" may follow.

    Raises:
        ValueError: both a version and a label are given.
    """
    if version is not None and label is not None:
        raise ValueError(f"expected a version or a label, received version {version} and label {label!r}")
    path = f"/v1/models/{quote(name, safe='')}"
    if version is not None:
        return f"{path}/versions/{version}"
    return path if label is None else f"{path}/labels/{quote(label, safe='')}"


def _predict_body(inputs: Mapping[str, Any], signature: str) -> bytes:
    """The body of a predict request, in columns."""
    body = {"signature_name": signature, "inputs": {alias: _to_json_value(values) for alias, values in inputs.items()}}
    # Python's own writer: NaN and infinities leave as the bare tokens that the server reads.
    return json.dumps(body, ensure_ascii=False).encode()


def _read_answer(status: int, content: bytes, address: str) -> dict[str, Any]:
    """The document of an answer.

    Raises:
        PredictionError: the server has refused, or is no model server.
    """
    answer = _parse(content)
    if status == _OK and isinstance(answer, dict):
        return answer
    said = answer.get("error", "") if isinstance(answer, dict) else ""
    raise PredictionError(
        CanonicalCode.from_http_status(status),
        said or f"{address} answered with HTTP status {status}: is it a model server?",
    )


def _read_outputs(answer: Mapping[str, Any], known: ModelMetadata, signature: str) -> dict[str, Any]:
    """The outputs by name, of which the server leaves out the name where there is only one."""
    outputs = answer["outputs"]
    names = list(known.signatures[signature].outputs) if signature in known.signatures else []
    named = {names[0]: outputs} if len(names) == 1 else outputs
    return {alias: _from_json_value(alias, values) for alias, values in named.items()}


def _read_metadata(answer: Mapping[str, Any]) -> ModelMetadata:
    """The signatures in the answer to a metadata request."""
    spec = PredictRequest().model_spec
    signatures = SignatureDefMap()
    json_format.ParseDict(answer["model_spec"], spec, ignore_unknown_fields=True)
    json_format.ParseDict(answer["metadata"]["signature_def"], signatures, ignore_unknown_fields=True)
    return ModelMetadata.from_messages(spec, signatures)


def _read_status(answer: Mapping[str, Any]) -> list[VersionStatus]:
    """The versions in the answer to a status request, highest first."""
    response = GetModelStatusResponse()
    json_format.ParseDict(answer, response, ignore_unknown_fields=True)
    return VersionStatus.from_message(response)


def _parse(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(content)  # with NaN and infinities
    except ValueError:
        return None


def _to_json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    numpy = sys.modules.get("numpy")  # a third of this module's import; whoever has an array has imported it
    if numpy is not None and isinstance(value, numpy.ndarray | numpy.generic):
        return value.tolist() if value.dtype.kind not in "OS" else _to_json_value(value.tolist())
    if isinstance(value, list | tuple):
        return [_to_json_value(item) for item in value]
    return value


def _from_json_value(name: str, value: Any) -> Any:
    if not name.endswith(_BYTES_SUFFIX):
        return value
    if isinstance(value, list):
        return [_from_json_value(name, item) for item in value]
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value
