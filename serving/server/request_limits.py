"""How large a request may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from serving.client.canonical_code import CanonicalCode
from serving.server.serving_error import ServingError


@dataclass(frozen=True)
class RequestLimits:
    """How large a request may be; the defaults are what one message of TensorFlow Serving can carry.

    Attributes:
        body_bytes: of an HTTP body, as it is sent and once it is decompressed, and of a gRPC message.
        tensor_bytes: of one input; a short gRPC message can ask for much, by one value that fills a shape.
        rows: of one input, its first dimension; None is as many as fit.
    """

    body_bytes: int = 2**31 - 1
    tensor_bytes: int = 2**31 - 1
    rows: int | None = None

    def check(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Refuse inputs with too many rows or bytes.

        Raises:
            ServingError: RESOURCE_EXHAUSTED.
        """
        for name, array in inputs.items():
            if self.rows is not None and array.ndim and array.shape[0] > self.rows:
                raise _too_large(f"Input {name} has {array.shape[0]} rows; this server takes {self.rows} at a time.")
            if array.nbytes > self.tensor_bytes:
                raise _too_large(f"Input {name} has {array.nbytes} bytes; this server takes {self.tensor_bytes}.")


def _too_large(message: str) -> ServingError:
    return ServingError(CanonicalCode.RESOURCE_EXHAUSTED, message)
