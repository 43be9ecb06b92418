"""Everything that can be set about the embedded server."""

from __future__ import annotations

from dataclasses import dataclass, field

from serving.server.load_policy import LoadPolicy


@dataclass(frozen=True)
class ServerOptions:
    """How the embedded server listens, loads and answers; the defaults are TensorFlow Serving's.

    Attributes:
        host: the address to listen on.
        rest_port: 0 picks a free one.
        grpc_port: likewise.
        load_policy: how base paths are polled and loads are retried.
    """

    host: str = "127.0.0.1"
    rest_port: int = 8501
    grpc_port: int = 8500
    load_policy: LoadPolicy = field(default_factory=LoadPolicy)
