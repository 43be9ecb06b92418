"""Clients of TensorFlow Serving and of `ingraph serve`, over REST and gRPC, without TensorFlow.

    from serving.client import RestClient

Each is imported when it is asked for: who speaks REST needs no grpc, and the other way round.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from serving.client import _old_names

if TYPE_CHECKING:
    from serving.client.errors import CanonicalCode, PredictionError
    from serving.client.grpc import AsyncGrpcClient, GrpcClient
    from serving.client.metadata import ModelMetadata, Signature, TensorDescription, VersionStatus
    from serving.client.rest import AsyncRestClient, RestClient
    from serving.client.retries import RetryPolicy
    from serving.client.tls import ClientTls

__all__ = [
    "AsyncGrpcClient",
    "AsyncRestClient",
    "CanonicalCode",
    "ClientTls",
    "GrpcClient",
    "ModelMetadata",
    "PredictionError",
    "RestClient",
    "RetryPolicy",
    "Signature",
    "TensorDescription",
    "VersionStatus",
    "errors",
    "grpc",
    "metadata",
    "rest",
    "retries",
    "table_columns",
    "tensors",
    "tls",
]

_MODULES = {
    "AsyncGrpcClient": "grpc",
    "AsyncRestClient": "rest",
    "CanonicalCode": "errors",
    "ClientTls": "tls",
    "GrpcClient": "grpc",
    "ModelMetadata": "metadata",
    "PredictionError": "errors",
    "RestClient": "rest",
    "RetryPolicy": "retries",
    "Signature": "metadata",
    "TensorDescription": "metadata",
    "VersionStatus": "metadata",
}

_old_names.install()


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
