"""A model server's gRPC port."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import grpc
import numpy as np

from serving.client import messages
from serving.client.canonical_code import CanonicalCode
from serving.client.input_array import input_array
from serving.client.model_metadata import ModelMetadata
from serving.client.prediction_error import PredictionError
from serving.client.tensor_proto import from_proto, to_proto
from serving.client.version_status import VersionStatus

_SIGNATURE_FIELD = "signature_def"
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]


class GrpcClient:
    """Asks TensorFlow Serving, or `ingraph serve`, over gRPC; threads may share one.

        with GrpcClient() as client:
            client.predict("heart", {"age": [63], "thal": ["fixed"], ...})

    Args:
        host: the server's name or address.
        port: its gRPC port.
        timeout_seconds: of every request.

    Raises:
        PredictionError: by every method, with the server's code and message; UNAVAILABLE where there is no server.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 8500, timeout_seconds: float = 30.0) -> None:
        self._target = f"{host}:{port}"
        self._timeout_seconds = timeout_seconds
        self._channel = grpc.insecure_channel(self._target, _OPTIONS)
        self._predict = self._method("PredictionService/Predict", messages.PredictResponse)
        self._get_metadata = self._method("PredictionService/GetModelMetadata", messages.GetModelMetadataResponse)
        self._get_status = self._method("ModelService/GetModelStatus", messages.GetModelStatusResponse)
        self._known: dict[tuple[str, int | None], ModelMetadata] = {}

    def predict(
        self, name: str, inputs: Mapping[str, Any], signature: str = "serving_default", version: int | None = None
    ) -> dict[str, np.ndarray]:
        """The outputs of one request, by name; strings are object arrays of bytes.

        Args:
            name: the model's name.
            inputs: by name, a value, a nested list or an array, sent in the dtype that the signature declares; strings
                as str or bytes.
            signature: which signature.
            version: which version; the newest where it is None.

        Raises:
            ValueError: an input is ragged or of another dtype than the signature's.
        """
        known = self._metadata_with(name, signature, version)
        declared = known.signatures[signature]
        request = messages.PredictRequest()
        _fill_spec(request.model_spec, name, version)
        request.model_spec.signature_name = signature
        for alias, values in inputs.items():
            if alias not in declared.inputs:
                raise PredictionError(
                    CanonicalCode.INVALID_ARGUMENT,
                    f"signature {signature} of {name} has no input {alias}; it has {', '.join(declared.inputs)}",
                )
            array = input_array(alias, values, declared.inputs[alias].dtype)
            to_proto(array, request.inputs[alias], as_content=True)
        try:
            response = self._call(self._predict, request)
        except PredictionError:
            self._known.pop((name, version), None)  # it may come of a newer version with other inputs
            raise
        if response.model_spec.version.value != known.version:
            self._known.pop((name, version), None)
        return {alias: from_proto(proto) for alias, proto in response.outputs.items()}

    def metadata(self, name: str, version: int | None = None) -> ModelMetadata:
        """The signatures of a model."""
        request = messages.GetModelMetadataRequest(metadata_field=[_SIGNATURE_FIELD])
        _fill_spec(request.model_spec, name, version)
        response = self._call(self._get_metadata, request)
        signatures = messages.SignatureDefMap()
        response.metadata[_SIGNATURE_FIELD].Unpack(signatures)
        return ModelMetadata.from_messages(response.model_spec, signatures)

    def status(self, name: str, version: int | None = None) -> list[VersionStatus]:
        """The state of a model's versions, highest first."""
        request = messages.GetModelStatusRequest()
        _fill_spec(request.model_spec, name, version)
        return VersionStatus.from_message(self._call(self._get_status, request))

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> GrpcClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _metadata_with(self, name: str, signature: str, version: int | None) -> ModelMetadata:
        known = self._known.get((name, version))
        if known is None or signature not in known.signatures:
            known = self._known[name, version] = self.metadata(name, version)
        if signature not in known.signatures:
            raise PredictionError(
                CanonicalCode.FAILED_PRECONDITION,
                f"{name} has no signature {signature}; it has {', '.join(sorted(known.signatures))}",
            )
        return known

    def _method(self, method: str, response: Any) -> Callable[..., Any]:
        call: Callable[..., Any] = self._channel.unary_unary(
            f"/tensorflow.serving.{method}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=response.FromString,
        )
        return call

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout_seconds)
        except grpc.RpcError as error:
            code = CanonicalCode[error.code().name]
            if code is CanonicalCode.UNAVAILABLE and "connect" in error.details():
                raise PredictionError(code, f"no server answers at {self._target} (gRPC)") from error
            raise PredictionError(code, error.details()) from error


def _fill_spec(spec: Any, name: str, version: int | None) -> None:
    spec.name = name
    if version is not None:
        spec.version.value = version
