"""What both REST clients say and hear, apart from how it travels."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson
from google.protobuf import json_format

from serving.client import messages
from serving.client.canonical_code import CanonicalCode
from serving.client.model_metadata import ModelMetadata
from serving.client.prediction_error import PredictionError
from serving.client.version_status import VersionStatus

HEADERS = {"Content-Type": "application/json"}
_BYTES_SUFFIX = "_bytes"  # string outputs of such a name come as {"b64": "…"}
_OK = 200


def model_path(name: str, version: int | None, label: str | None) -> str:
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


def predict_body(inputs: Mapping[str, Any], signature: str) -> bytes:
    """The body of a predict request, in columns."""
    body = {"signature_name": signature, "inputs": {alias: _to_json_value(values) for alias, values in inputs.items()}}
    # Python's own writer: NaN and infinities leave as the bare tokens that the server reads.
    return json.dumps(body, ensure_ascii=False).encode()


def read_answer(status: int, content: bytes, address: str) -> dict[str, Any]:
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


def read_outputs(answer: Mapping[str, Any], known: ModelMetadata, signature: str) -> dict[str, Any]:
    """The outputs by name, of which the server leaves out the name where there is only one."""
    outputs = answer["outputs"]
    names = list(known.signatures[signature].outputs) if signature in known.signatures else []
    named = {names[0]: outputs} if len(names) == 1 else outputs
    return {alias: _from_json_value(alias, values) for alias, values in named.items()}


def read_metadata(answer: Mapping[str, Any]) -> ModelMetadata:
    """The signatures in the answer to a metadata request."""
    spec = messages.PredictRequest().model_spec
    signatures = messages.SignatureDefMap()
    json_format.ParseDict(answer["model_spec"], spec, ignore_unknown_fields=True)
    json_format.ParseDict(answer["metadata"]["signature_def"], signatures, ignore_unknown_fields=True)
    return ModelMetadata.from_messages(spec, signatures)


def read_status(answer: Mapping[str, Any]) -> list[VersionStatus]:
    """The versions in the answer to a status request, highest first."""
    response = messages.GetModelStatusResponse()
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
