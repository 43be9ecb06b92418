"""Everything that can be set about the embedded server."""

from __future__ import annotations

from dataclasses import dataclass, field

from serving.server.load_policy import LoadPolicy
from serving.server.request_limits import RequestLimits
from serving.server.tls_files import TlsFiles


@dataclass(frozen=True)
class ServerOptions:
    """How the embedded server listens, loads and answers; the defaults are TensorFlow Serving's.

    Attributes:
        host: the address to listen on.
        rest_port: 0 picks a free one.
        grpc_port: likewise.
        load_policy: how base paths are polled and loads are retried.
        rest_timeout_seconds: how long a model may take over a REST request; over gRPC the client's deadline counts.
        limits: how large a request may be.
        cors: whether pages of other sites may send requests by a browser.
        tls: the certificates of both ports; None where they are not encrypted.
        grpc_health: whether grpc.health.v1.Health is there.
        grpc_reflection: whether a client may ask the gRPC port for its services.
        access_log: the file that gets one line of JSON per request; "-" is standard output, "" is none.
    """

    host: str = "127.0.0.1"
    rest_port: int = 8501
    grpc_port: int = 8500
    load_policy: LoadPolicy = field(default_factory=LoadPolicy)
    rest_timeout_seconds: float = 30.0
    limits: RequestLimits = field(default_factory=RequestLimits)
    cors: bool = False
    tls: TlsFiles | None = None
    grpc_health: bool = False
    grpc_reflection: bool = False
    access_log: str = ""
