"""A model server's REST port."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import requests
from requests.adapters import HTTPAdapter

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
        self._address = f"{'http' if tls is None else 'https'}://{host}:{port}"
        self._timeout_seconds = timeout_seconds
        self._retry = retry
        self._session = requests.Session()
        self._session.trust_env = False  # a model server is not behind the proxy of a browser
        if tls is not None:
            self._session.mount("https://", _TlsAdapter(tls.ssl_context()))
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
        path = model_path(name, version, label)
        known = self._known.get(path)
        if known is None or signature not in known.signatures:
            known = self._known[path] = self.metadata(name, version, label)
        # The server itself refuses a signature that the model does not have.
        answer = self._request("POST", f"{path}:predict", predict_body(inputs, signature))
        return read_outputs(answer, known, signature)

    def metadata(self, name: str, version: int | None = None, label: str | None = None) -> ModelMetadata:
        """The signatures of a model."""
        return read_metadata(self._request("GET", f"{model_path(name, version, label)}/metadata"))

    def status(self, name: str, version: int | None = None) -> list[VersionStatus]:
        """The state of a model's versions, highest first."""
        return read_status(self._request("GET", model_path(name, version, None)))

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

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
            response = self._session.request(
                method, self._address + path, data=body, headers=HEADERS, timeout=self._timeout_seconds
            )
        except requests.Timeout as error:
            message = f"no answer from {self._address} within {self._timeout_seconds:g} s"
            raise PredictionError(CanonicalCode.DEADLINE_EXCEEDED, message) from error
        except requests.RequestException as error:
            raise PredictionError(CanonicalCode.UNAVAILABLE, f"no server answers at {self._address} (REST)") from error
        return read_answer(response.status_code, response.content, self._address + path)


class _TlsAdapter(HTTPAdapter):
    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options, ssl_context=self._context)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Left to the context, which knows the authorities; requests would add its own to them."""
