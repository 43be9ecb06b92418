"""What both gRPC clients say and hear, apart from how it travels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from serving.client import messages
from serving.client.canonical_code import CanonicalCode
from serving.client.input_array import input_array
from serving.client.model_metadata import ModelMetadata
from serving.client.prediction_error import PredictionError
from serving.client.tensor_proto import from_proto, to_proto
from serving.client.version_status import VersionStatus

CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]
_SIGNATURE_FIELD = "signature_def"
_RESPONSES = {
    "PredictionService/Predict": messages.PredictResponse,
    "PredictionService/GetModelMetadata": messages.GetModelMetadataResponse,
    "ModelService/GetModelStatus": messages.GetModelStatusResponse,
}


def grpc_method(channel: Any, method: str) -> Any:
    """The callable of "Service/Method" on a channel, with or without asyncio."""
    return channel.unary_unary(
        f"/tensorflow.serving.{method}",
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=_RESPONSES[method].FromString,
    )


def predict_request(
    name: str,
    inputs: Mapping[str, Any],
    signature: str,
    version: int | None,
    label: str | None,
    known: ModelMetadata,
) -> Any:
    """A PredictRequest with every input in the dtype that the model declares.

    Raises:
        PredictionError: INVALID_ARGUMENT, the signature has no such input.
        ValueError: an input is ragged or of another dtype than the signature's.
    """
    declared = known.signatures[signature]
    request = messages.PredictRequest()
    _fill_spec(request.model_spec, name, version, label)
    request.model_spec.signature_name = signature
    for alias, values in inputs.items():
        if alias not in declared.inputs:
            raise PredictionError(
                CanonicalCode.INVALID_ARGUMENT,
                f"signature {signature} of {name} has no input {alias}; it has {', '.join(declared.inputs)}",
            )
        array = input_array(alias, values, declared.inputs[alias].dtype)
        to_proto(array, request.inputs[alias], as_content=True)
    return request


def read_outputs(response: Any) -> dict[str, np.ndarray]:
    """The outputs of a PredictResponse, by name."""
    return {alias: from_proto(proto) for alias, proto in response.outputs.items()}


def metadata_request(name: str, version: int | None, label: str | None) -> Any:
    """A GetModelMetadataRequest for the signatures."""
    request = messages.GetModelMetadataRequest(metadata_field=[_SIGNATURE_FIELD])
    _fill_spec(request.model_spec, name, version, label)
    return request


def read_metadata(response: Any) -> ModelMetadata:
    """The signatures of a GetModelMetadataResponse."""
    signatures = messages.SignatureDefMap()
    response.metadata[_SIGNATURE_FIELD].Unpack(signatures)
    return ModelMetadata.from_messages(response.model_spec, signatures)


def check_signature(known: ModelMetadata, name: str, signature: str) -> None:
    """Refuse a signature that the model does not have, as the server would.

    Raises:
        PredictionError: FAILED_PRECONDITION.
    """
    if signature not in known.signatures:
        raise PredictionError(
            CanonicalCode.FAILED_PRECONDITION,
            f"{name} has no signature {signature}; it has {', '.join(sorted(known.signatures))}",
        )


def status_request(name: str, version: int | None) -> Any:
    """A GetModelStatusRequest."""
    request = messages.GetModelStatusRequest()
    _fill_spec(request.model_spec, name, version, None)
    return request


def read_status(response: Any) -> list[VersionStatus]:
    """The versions of a GetModelStatusResponse, highest first."""
    return VersionStatus.from_message(response)


def refusal(error: Any, target: str) -> PredictionError:
    """What a grpc.RpcError says."""
    code = CanonicalCode[error.code().name]
    details = error.details() or ""
    if code is CanonicalCode.UNAVAILABLE and "connect" in details:
        return PredictionError(code, f"no server answers at {target} (gRPC)")
    return PredictionError(code, details)


def channel_target(host: str, port: int) -> str:
    """As grpc writes addresses."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _fill_spec(spec: Any, name: str, version: int | None, label: str | None) -> None:
    if version is not None and label is not None:
        raise ValueError(f"expected a version or a label, received version {version} and label {label!r}")
    spec.name = name
    if version is not None:
        spec.version.value = version
    if label is not None:
        spec.version_label = label
