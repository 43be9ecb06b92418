"""Clients of TensorFlow Serving and of `ingraph serve`, over REST and gRPC, without TensorFlow.

    from serving.client import RestClient

Each is imported when it is asked for: who speaks REST needs no grpc, and the other way round.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.client.connection import ClientTls, RetryPolicy
    from serving.client.errors import CanonicalCode, PredictionError
    from serving.client.grpc import AsyncGrpcClient, GrpcClient
    from serving.client.metadata import ModelMetadata, Signature, TensorDescription, VersionStatus
    from serving.client.rest import AsyncRestClient, RestClient

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
    "connection",
    "errors",
    "grpc",
    "metadata",
    "rest",
    "table_columns",
    "tensors",
]

_MODULES = {
    "AsyncGrpcClient": "grpc",
    "AsyncRestClient": "rest",
    "CanonicalCode": "errors",
    "ClientTls": "connection",
    "GrpcClient": "grpc",
    "ModelMetadata": "metadata",
    "PredictionError": "errors",
    "RestClient": "rest",
    "RetryPolicy": "connection",
    "Signature": "metadata",
    "TensorDescription": "metadata",
    "VersionStatus": "metadata",
}

# Old names of this package's modules: they are imported as before, and say once what they are called now.
_PACKAGE = f"{__name__}."
_NEW_NAMES = {
    "async_grpc_client": "grpc",
    "async_rest_client": "rest",
    "canonical_code": "errors",
    "client_tls": "connection",
    "grpc_client": "grpc",
    "input_array": "tensors",
    "messages": "messages_pb2",
    "model_metadata": "metadata",
    "prediction_error": "errors",
    "rest_client": "rest",
    "retries": "connection",
    "retry_policy": "connection",
    "table_value": "table_columns",
    "tensor_proto": "tensors",
    "tls": "connection",
    "version_status": "metadata",
}


class _OldNames(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        name = fullname.removeprefix(_PACKAGE)
        return ModuleSpec(fullname, self) if fullname.startswith(_PACKAGE) and name in _NEW_NAMES else None

    def exec_module(self, module: ModuleType) -> None:
        new_name = _PACKAGE + _NEW_NAMES[module.__name__.removeprefix(_PACKAGE)]
        warnings.warn(f"{module.__name__} is called {new_name} now", DeprecationWarning, stacklevel=2)
        public = {name: value for name, value in vars(importlib.import_module(new_name)).items() if name[0] != "_"}
        vars(module).update(public)


sys.meta_path.append(_OldNames())


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
