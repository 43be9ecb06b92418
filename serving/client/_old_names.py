"""Old names of this package's modules: they are imported as before, and say once what they are called now."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_PACKAGE = "serving.client."
_NEW_NAMES = {
    "async_grpc_client": "grpc",
    "async_rest_client": "rest",
    "canonical_code": "errors",
    "client_tls": "tls",
    "grpc_client": "grpc",
    "input_array": "tensors",
    "messages": "messages_pb2",
    "model_metadata": "metadata",
    "prediction_error": "errors",
    "rest_client": "rest",
    "retry_policy": "retries",
    "table_value": "table_columns",
    "tensor_proto": "tensors",
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


def install() -> None:
    """Find the old names from now on; to be called once."""
    sys.meta_path.append(_OldNames())
