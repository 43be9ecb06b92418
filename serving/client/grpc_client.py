"""A model server's gRPC port."""

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
        self._target = channel_target(host, port)
        self._timeout_seconds = timeout_seconds
        self._retry = retry
        self._channel = (
            grpc.insecure_channel(self._target, CHANNEL_OPTIONS)
            if tls is None
            else grpc.secure_channel(self._target, tls.channel_credentials(), CHANNEL_OPTIONS)
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
        check_signature(known, name, signature)
        request = predict_request(name, inputs, signature, version, label, known)
        try:
            response = self._call("PredictionService/Predict", request)
        except PredictionError:
            self._known.pop(meant, None)  # it may come of a newer version with other inputs
            raise
        if response.model_spec.version.value != known.version:
            self._known.pop(meant, None)
        return read_outputs(response)

    def metadata(self, name: str, version: int | None = None, label: str | None = None) -> ModelMetadata:
        """The signatures of a model."""
        return read_metadata(self._call("PredictionService/GetModelMetadata", metadata_request(name, version, label)))

    def status(self, name: str, version: int | None = None) -> list[VersionStatus]:
        """The state of a model's versions, highest first."""
        return read_status(self._call("ModelService/GetModelStatus", status_request(name, version)))

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
        ask = self._methods.get(method) or self._methods.setdefault(method, grpc_method(self._channel, method))

        def once() -> Any:
            try:
                return ask(request, timeout=self._timeout_seconds)
            except grpc.RpcError as error:
                raise refusal(error, self._target) from error

        return self._retry.call(once)
