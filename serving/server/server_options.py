"""Everything that can be set about the embedded server."""

from __future__ import annotations

from dataclasses import dataclass, field

from serving.server.batching_parameters import BatchingParameters
from serving.server.load_policy import LoadPolicy
from serving.server.request_limits import RequestLimits
from serving.server.request_log_options import RequestLogOptions
from serving.server.tls_files import TlsFiles


@dataclass(frozen=True)
class ServerOptions:
    """How the embedded server listens, loads and answers; the defaults are TensorFlow Serving's.

    Attributes:
        host: the address to listen on.
        rest_port: 0 picks a free one.
        grpc_port: likewise.
        load_policy: how base paths are polled and loads are retried.
        model_config_file: a text file of ModelServerConfig that lists the models, instead of base paths by name.
        model_config_file_poll_seconds: how often that file is looked at again; 0 is never.
        labels_may_wait: whether a config may give a label that is not in use to a version that is not available yet.
        batching: how requests are merged; None where each runs alone.
        metrics_path: where the REST port shows metrics to Prometheus; None where nothing is counted.
        rest_timeout_seconds: how long a model may take over a REST request; over gRPC the client's deadline counts.
        limits: how large a request may be.
        cors: whether pages of other sites may send requests by a browser.
        tls: the certificates of both ports; None where they are not encrypted.
        grpc_health: whether grpc.health.v1.Health is there.
        grpc_reflection: whether a client may ask the gRPC port for its services.
        playground: whether the REST port shows the page on which people try the models.
        access_log: the file that gets one line of JSON per request; "-" is standard output, "" is none.
        request_log: where requests are logged, for all models together; not looked at where a config file says it.
    """

    host: str = "127.0.0.1"
    rest_port: int = 8501
    grpc_port: int = 8500
    load_policy: LoadPolicy = field(default_factory=LoadPolicy)
    model_config_file: str | None = None
    model_config_file_poll_seconds: float = 0.0
    labels_may_wait: bool = False
    batching: BatchingParameters | None = None
    metrics_path: str | None = None
    rest_timeout_seconds: float = 30.0
    limits: RequestLimits = field(default_factory=RequestLimits)
    cors: bool = False
    tls: TlsFiles | None = None
    grpc_health: bool = False
    grpc_reflection: bool = False
    playground: bool = False
    access_log: str = ""
    request_log: RequestLogOptions | None = None
