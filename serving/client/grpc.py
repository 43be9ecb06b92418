"""gRPC clients of a model server, synchronous and for asyncio."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import grpc
import numpy as np

from serving.client.connection import ClientTls, RetryPolicy
from serving.client.errors import CanonicalCode, PredictionError
from serving.client.messages_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    PredictRequest,
    PredictResponse,
    SignatureDefMap,
)
from serving.client.metadata import ModelMetadata, VersionStatus
from serving.client.tensors import from_proto, input_array, to_proto

_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]
_SIGNATURE_FIELD = "signature_def"
_RESPONSES = {
    "PredictionService/Predict": PredictResponse,
    "PredictionService/GetModelMetadata": GetModelMetadataResponse,
    "ModelService/GetModelStatus": GetModelStatusResponse,
}


class GrpcClient:
    """Asks TensorFlow Serving, or `ingraph serve`, over gRPC; threads may share one.

        with GrpcClient() as client:
            client.predict("heart", {"age": [63], "thal": ["fixed"], ...})

    Args:
        host: the server's name or address.
        port: its gRPC port.
        timeout_seconds: of every attempt.
        retry: how a request is repeated that was answered with UNAVAILABLE, or not at all.
        tls: for an encrypted port.

    Raises:
        PredictionError: by every method, with the server's code and message; UNAVAILABLE where there is no server.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8500,
        timeout_seconds: float = 30.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008
        tls: ClientTls | None = None,
    ) -> None:
        self._target = _channel_target(host, port)
        self._timeout_seconds = timeout_seconds
        self._retry = retry
        self._channel = (
            grpc.insecure_channel(self._target, _CHANNEL_OPTIONS)
            if tls is None
            else grpc.secure_channel(self._target, tls.channel_credentials(), _CHANNEL_OPTIONS)
        )
        self._methods: dict[str, Any] = {}
        self._known: dict[tuple[str, int | None, str | None], ModelMetadata] = {}

    def predict(
        self,
        name: str,
        inputs: Mapping[str, Any],
        signature: str = "serving_default",
        version: int | None = None,
        label: str | None = None,
    ) -> dict[str, np.ndarray]:
        """The outputs of one request, by name; strings are object arrays of bytes.

        Args:
            name: the model's name.
            inputs: by name, a value, a nested list or an array, sent in the dtype that the signature declares; strings
                as str or bytes.
            signature: which signature.
            version: which version; the newest where it and `label` are None.
            label: which version, by its label, such as "stable".

        Raises:
            ValueError: an input is ragged or of another dtype than the signature's.
        """
        meant = (name, version, label)
        known = self._known.get(meant)
        if known is None or signature not in known.signatures:
            known = self._known[meant] = self.metadata(*meant)
        _check_signature(known, name, signature)
        request = _predict_request(name, inputs, signature, version, label, known)
        try:
            response = self._call("PredictionService/Predict", request)
        except PredictionError:
            self._known.pop(meant, None)  # it may come of a newer version with other inputs
            raise
        if response.model_spec.version.value != known.version:
            self._known.pop(meant, None)
        return _read_outputs(response)

    def metadata(self, name: str, version: int | None = None, label: str | None = None) -> ModelMetadata:
        """The signatures of a model."""
        return _read_metadata(self._call("PredictionService/GetModelMetadata", _metadata_request(name, version, label)))

    def status(self, name: str, version: int | None = None) -> list[VersionStatus]:
        """The state of a model's versions, highest first."""
        return _read_status(self._call("ModelService/GetModelStatus", _status_request(name, version)))

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> GrpcClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: str, request: Any) -> Any:
        ask = self._methods.get(method) or self._methods.setdefault(method, _grpc_method(self._channel, method))

        def once() -> Any:
            try:
                return ask(request, timeout=self._timeout_seconds)
            except grpc.RpcError as error:
                raise _refusal(error, self._target) from error

        return self._retry.call(once)


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
        self._target = _channel_target(host, port)
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
        _check_signature(known, name, signature)
        request = _predict_request(name, inputs, signature, version, label, known)
        try:
            response = await self._call("PredictionService/Predict", request)
        except PredictionError:
            self._known.pop(meant, None)  # it may come of a newer version with other inputs
            raise
        if response.model_spec.version.value != known.version:
            self._known.pop(meant, None)
        return _read_outputs(response)

    async def metadata(self, name: str, version: int | None = None, label: str | None = None) -> ModelMetadata:
        """The signatures of a model."""
        request = _metadata_request(name, version, label)
        return _read_metadata(await self._call("PredictionService/GetModelMetadata", request))

    async def status(self, name: str, version: int | None = None) -> list[VersionStatus]:
        """The state of a model's versions, highest first."""
        return _read_status(await self._call("ModelService/GetModelStatus", _status_request(name, version)))

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
        ask = self._methods.get(method) or self._methods.setdefault(method, _grpc_method(self._opened(), method))

        async def once() -> Any:
            try:
                return await ask(request, timeout=self._timeout_seconds)
            except grpc.RpcError as error:
                raise _refusal(error, self._target) from error

        return await self._retry.call_async(once)

    def _opened(self) -> grpc.aio.Channel:
        # Only inside a running event loop, which there need not be where the client is made.
        if self._channel is None:
            self._channel = (
                grpc.aio.insecure_channel(self._target, _CHANNEL_OPTIONS)
                if self._tls is None
                else grpc.aio.secure_channel(self._target, self._tls.channel_credentials(), _CHANNEL_OPTIONS)
            )
        return self._channel


def _grpc_method(channel: Any, method: str) -> Any:
    """The callable of "Service/Method" on a channel, with or without asyncio."""
    return channel.unary_unary(
        f"/tensorflow.serving.{method}",
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=_RESPONSES[method].FromString,
    )


def _predict_request(
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
    request = PredictRequest()
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


def _read_outputs(response: Any) -> dict[str, np.ndarray]:
    """The outputs of a PredictResponse, by name."""
    return {alias: from_proto(proto) for alias, proto in response.outputs.items()}


def _metadata_request(name: str, version: int | None, label: str | None) -> Any:
    """A GetModelMetadataRequest for the signatures."""
    request = GetModelMetadataRequest(metadata_field=[_SIGNATURE_FIELD])
    _fill_spec(request.model_spec, name, version, label)
    return request


def _read_metadata(response: Any) -> ModelMetadata:
    """The signatures of a GetModelMetadataResponse."""
    # An Any of tensorflow.serving.SignatureDefMap, whose bytes are those of ours.
    signatures = SignatureDefMap.FromString(response.metadata[_SIGNATURE_FIELD].value)
    return ModelMetadata.from_messages(response.model_spec, signatures)


def _check_signature(known: ModelMetadata, name: str, signature: str) -> None:
    """Refuse a signature that the model does not have, as the server would.

    Raises:
        PredictionError: FAILED_PRECONDITION.
    """
    if signature not in known.signatures:
        raise PredictionError(
            CanonicalCode.FAILED_PRECONDITION,
            f"{name} has no signature {signature}; it has {', '.join(sorted(known.signatures))}",
        )


def _status_request(name: str, version: int | None) -> Any:
    """A GetModelStatusRequest."""
    request = GetModelStatusRequest()
    _fill_spec(request.model_spec, name, version, None)
    return request


def _read_status(response: Any) -> list[VersionStatus]:
    """The versions of a GetModelStatusResponse, highest first."""
    return VersionStatus.from_message(response)


def _refusal(error: Any, target: str) -> PredictionError:
    """What a grpc.RpcError says."""
    code = CanonicalCode[error.code().name]
    details = error.details() or ""
    if code is CanonicalCode.UNAVAILABLE and "connect" in details:
        return PredictionError(code, f"no server answers at {target} (gRPC)")
    return PredictionError(code, details)


def _channel_target(host: str, port: int) -> str:
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
