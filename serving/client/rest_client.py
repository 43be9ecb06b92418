"""A model server's REST port."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson
import requests
from google.protobuf import json_format

from serving.client import messages
from serving.client.canonical_code import CanonicalCode
from serving.client.model_metadata import ModelMetadata
from serving.client.prediction_error import PredictionError
from serving.client.version_status import VersionStatus

_BYTES_SUFFIX = "_bytes"  # string outputs of such a name come as {"b64": "…"}


class RestClient:
    """Asks TensorFlow Serving, or `ingraph serve`, over REST; for one thread at a time.

        with RestClient() as client:
            client.predict("heart", {"age": [63], "thal": ["fixed"], ...})

    Args:
        host: the server's name or address.
        port: its REST port.
        timeout_seconds: of every request.

    Raises:
        PredictionError: by every method, with the server's code and message; UNAVAILABLE where there is no server.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 8501, timeout_seconds: float = 30.0) -> None:
        self._address = f"http://{host}:{port}"
        self._timeout_seconds = timeout_seconds
        self._session = requests.Session()
        self._session.trust_env = False  # a model server is not behind the proxy of a browser
        self._known: dict[tuple[str, int | None], ModelMetadata] = {}

    def predict(
        self, name: str, inputs: Mapping[str, Any], signature: str = "serving_default", version: int | None = None
    ) -> dict[str, Any]:
        """The outputs of one request, by name: nested lists; strings as str, those of outputs "…_bytes" as bytes.

        Args:
            name: the model's name.
            inputs: by name, a value, a nested list or an array; bytes are sent as {"b64": …}.
            signature: which signature.
            version: which version; the newest where it is None.
        """
        output_names = self._output_names(name, signature, version)
        body = {
            "signature_name": signature,
            "inputs": {alias: _to_json_value(values) for alias, values in inputs.items()},
        }
        path = f"{_path(name, version)}:predict"
        # Python's own writer: NaN and infinities leave as the bare tokens that the server reads.
        answer = self._request("POST", path, json.dumps(body, ensure_ascii=False).encode())["outputs"]
        # The server leaves the name out where there is only one output.
        outputs = {output_names[0]: answer} if len(output_names) == 1 else answer
        return {alias: _from_json_value(alias, values) for alias, values in outputs.items()}

    def metadata(self, name: str, version: int | None = None) -> ModelMetadata:
        """The signatures of a model."""
        answer = self._request("GET", f"{_path(name, version)}/metadata")
        spec = messages.PredictRequest().model_spec
        signatures = messages.SignatureDefMap()
        json_format.ParseDict(answer["model_spec"], spec, ignore_unknown_fields=True)
        json_format.ParseDict(answer["metadata"]["signature_def"], signatures, ignore_unknown_fields=True)
        return ModelMetadata.from_messages(spec, signatures)

    def status(self, name: str, version: int | None = None) -> list[VersionStatus]:
        """The state of a model's versions, highest first."""
        response = messages.GetModelStatusResponse()
        json_format.ParseDict(self._request("GET", _path(name, version)), response, ignore_unknown_fields=True)
        return VersionStatus.from_message(response)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def __enter__(self) -> RestClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _output_names(self, name: str, signature: str, version: int | None) -> list[str]:
        known = self._known.get((name, version))
        if known is None or signature not in known.signatures:
            known = self._known[name, version] = self.metadata(name, version)
        # The server itself refuses a signature that the model does not have.
        return list(known.signatures[signature].outputs) if signature in known.signatures else []

    def _request(self, method: str, path: str, body: bytes | None = None) -> Any:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            response = self._session.request(
                method, self._address + path, data=body, headers=headers, timeout=self._timeout_seconds
            )
        except requests.Timeout as error:
            message = f"no answer from {self._address} within {self._timeout_seconds:g} s"
            raise PredictionError(CanonicalCode.DEADLINE_EXCEEDED, message) from error
        except requests.RequestException as error:
            raise PredictionError(CanonicalCode.UNAVAILABLE, f"no server answers at {self._address} (REST)") from error
        answer = _parse(response.content)
        if response.status_code == requests.codes.ok and isinstance(answer, dict):
            return answer
        said = answer.get("error", "") if isinstance(answer, dict) else ""
        raise PredictionError(
            CanonicalCode.from_http_status(response.status_code),
            said or f"{self._address}{path} answered with HTTP status {response.status_code}: is it a model server?",
        )


def _path(name: str, version: int | None) -> str:
    return f"/v1/models/{quote(name, safe='')}" + (f"/versions/{version}" if version is not None else "")


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
    if isinstance(value, np.ndarray | np.generic):
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
