"""The URL grammar of TensorFlow Serving's REST port (model_servers/http_rest_api_util.cc)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from tensorflow_serving.apis import model_pb2

from serving.server.serving_error import invalid_argument

_VERSION = r"(?:(?:/versions/(?P<version>\d+))|(?:/labels/(?P<label>[^/:]+)))?"
_FLAGS = re.IGNORECASE | re.ASCII
_ROUTED = re.compile(r"/v1/.*", _FLAGS)
_GRAMMAR = {
    "POST": re.compile(rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<verb>classify|regress|predict)", _FLAGS),
    "GET": re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?:/(?P<verb>metadata))?", _FLAGS),
}
_METHODS = {"predict": "Predict", "classify": "Classify", "regress": "Regress"}


@dataclass(frozen=True)
class RestCall:
    """What a request asks of a model, as the gRPC method that asks the same: "Predict", "GetModelStatus" …"""

    method: str
    spec: model_pb2.ModelSpec


def is_routed(path: str) -> bool:
    """Whether the REST API answers for this path at all; every other path is a plain 404."""
    return _ROUTED.fullmatch(path) is not None


def parse_call(method: str, path: str) -> RestCall:
    """The call that a method and a URL path (still percent-encoded, without the query) make.

    Raises:
        ServingError: INVALID_ARGUMENT, no such call.
    """
    malformed = invalid_argument(f"Malformed request: {method} {path}")
    match = _GRAMMAR[method].fullmatch(path) if method in _GRAMMAR else None
    if match is None:
        raise malformed
    spec = model_pb2.ModelSpec(name=unquote(match["name"] or ""))
    if match["version"]:
        if len(match["version"].lstrip("0")) > 19 or int(match["version"]) >= 2**63:
            raise invalid_argument(f"Failed to convert version: {match['version']} to numeric.")
        spec.version.value = int(match["version"])
    if match["label"]:
        spec.version_label = unquote(match["label"])
    if method == "POST":
        # The path is matched in any case, the verb is then compared as it is.
        if match["verb"] not in _METHODS:
            raise malformed
        return RestCall(_METHODS[match["verb"]], spec)
    if not spec.name:
        raise invalid_argument("Missing model name in request.")
    return RestCall("GetModelMetadata" if match["verb"] == "metadata" else "GetModelStatus", spec)
