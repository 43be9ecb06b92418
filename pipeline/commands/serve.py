"""`ingraph serve`."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from pipeline.exit_status import ExitStatus
from serving.loading import garbage_collection_paused

if TYPE_CHECKING:
    from serving.server.app import EmbeddedServer
    from serving.server.config import RequestLogOptions
    from serving.server.options import MemoryLimits, ServerOptions, TlsFiles

_UNITS = {"": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


class _Bytes(click.ParamType):
    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d+)\s*([KMGT]iB)?", str(value), re.IGNORECASE | re.ASCII)
        if match is None or not int(match[1]):
            self.fail(f"expected a number of bytes such as 8GiB or 500000000, received {value!r}", param, ctx)
        return int(match[1]) * _UNITS[(match[2] or "").upper()]


_NAME = re.compile(r"[^/:=\s]+")


@click.command()
@click.option(
    "--model",
    "models",
    metavar="NAME=BASE_PATH",
    multiple=True,
    help="A model and its base path, the directory that holds <version>/saved_model.pb. May be given several times.",
)
@click.option(
    "--model-config-file",
    type=click.Path(),
    help="Instead of --model: a text file of tensorflow.serving.ModelServerConfig, as `ingraph models config` prints.",
)
@click.option(
    "--model-config-file-poll-wait-seconds",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="How often that file is looked at again; 0 is never.",
)
@click.option(
    "--allow-version-labels-for-unavailable-models",
    is_flag=True,
    help="Let that file give labels that are not in use yet to versions that are still to be loaded, as at the start.",
)
@click.option(
    "--allow-reload-config",
    "reload_roots",
    metavar="ROOT",
    multiple=True,
    help="Let gRPC clients say what is served, by HandleReloadConfigRequest: models and request logs below this "
    "directory or URL, and nothing else. May be given several times.  [default: no client may]",
)
@click.option(
    "--allow-reload-config-from-anywhere",
    is_flag=True,
    help="Let them say it from other machines without a certificate of --tls-client-ca, too.",
)
@click.option(
    "--allow-file-operations",
    is_flag=True,
    help="Serve models whose graphs read or write files outside of their own assets: only those of people you trust.",
)
@click.option(
    "--require-signature",
    "signature_keys",
    metavar="PUBLIC_KEY",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Serve no version but those signed with this key (PEM), and not changed since. May be given several times.",
)
@click.option(
    "--enable-model-warmup/--no-enable-model-warmup",
    default=True,
    show_default=True,
    help="Replay a version's warm-up requests before it answers.",
)
@click.option("--rest-port", type=click.IntRange(0, 65535), default=8501, show_default=True, help="0 picks a free one.")
@click.option("--grpc-port", type=click.IntRange(0, 65535), default=8500, show_default=True, help="0 picks a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--poll-seconds",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="How often base paths are looked at for new and withdrawn versions; 0 looks once.",
)
@click.option(
    "--wait-for-models",
    is_flag=True,
    help="Keep the ports shut while a version that could not be loaded is tried again: five times, once a minute.",
)
@click.option("--enable-batching", is_flag=True, help="Merge requests of different clients into batches.")
@click.option(
    "--batching-parameters-file",
    type=click.Path(),
    help="How requests are merged: a text file of tensorflow.serving.BatchingParameters.",
)
@click.option(
    "--monitoring-config-file",
    type=click.Path(),
    help="Whether and where Prometheus finds metrics: a text file of tensorflow.serving.MonitoringConfig.",
)
@click.option(
    "--rest-timeout-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="How long a model may take over a REST request; over gRPC the client's own deadline counts.",
)
@click.option(
    "--header-timeout-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="In which the head of a request has to arrive, once it has begun.",
)
@click.option(
    "--idle-timeout-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=620.0,
    show_default=True,
    help="After which a connection without requests is closed; longer than load balancers keep theirs.",
)
@click.option(
    "--max-connections",
    type=click.IntRange(min=1),
    help="On each of the two ports.  [default: half of the file descriptors, but for a reserve]",
)
@click.option(
    "--memory-budget",
    type=_Bytes(),
    metavar="BYTES",
    help="Of all requests that are being answered, such as 8GiB: bodies, tensors, answers.  "
    "[default: half of the machine's]",
)
@click.option(
    "--request-memory-budget",
    type=_Bytes(),
    metavar="BYTES",
    help="Of one request.  [default: an eighth of that, or 1.5 GiB where half of it allows as much]",
)
@click.option("--max-body-bytes", type=click.IntRange(min=1), help="Of a REST body or gRPC message.  [default: 2 GiB]")
@click.option("--max-tensor-bytes", type=click.IntRange(min=1), help="Of one input of a request.  [default: 2 GiB]")
@click.option("--max-rows", type=click.IntRange(min=1), help="Of one request.  [default: as many as fit]")
@click.option("--rest-api-enable-cors-support", is_flag=True, help="Let pages of other sites send requests.")
@click.option("--enable-grpc-healthcheck-service", is_flag=True, help="Offer grpc.health.v1.Health.")
@click.option("--enable-grpc-reflection", is_flag=True, help="Let tools such as grpcurl ask which services there are.")
@click.option("--tls-certificate", type=click.Path(), help="PEM file; with --tls-key both ports are encrypted.")
@click.option("--tls-key", type=click.Path(), help="PEM file with the certificate's private key.")
@click.option("--tls-client-ca", type=click.Path(), help="PEM file; only clients with a certificate of it are let in.")
@click.option(
    "--ui", "playground", is_flag=True, help="Show a page at / of the REST port on which people try the models."
)
@click.option("--access-log", metavar="FILE", default="", help="One line of JSON per request; - is standard output.")
@click.option(
    "--request-log",
    metavar="PREFIX",
    help="Log requests with their answers in files PREFIX-….tfrecord, as TensorFlow Serving's PredictionLogs.",
)
@click.option(
    "--request-log-sampling",
    type=click.FloatRange(0, 1),
    help="The share of requests that --request-log takes, drawn at random.  [default: 1]",
)
def serve(models: tuple[str, ...], **flags: Any) -> None:
    """Serve published models over REST and gRPC, as TensorFlow Serving does.

    Serves the largest version in each base path and those that `ingraph models label` has given a label, takes up new
    and withdrawn versions while requests go on, and prints one line when both ports are open: when every model is
    available, or cannot be loaded. Ctrl-C or SIGTERM stops it once the requests in flight are answered.

    \b
    ingraph serve --model heart=models/heart
    curl -d '{"inputs": {"age": [63], …}}' http://127.0.0.1:8501/v1/models/heart:predict

    Exit status: 0 when stopped, 2 when a port cannot be opened, or the command line or a config file is wrong.
    """
    base_paths = _parse_models(models)
    _check_flags(models, flags)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("serving").setLevel(logging.INFO)
    _import_tensorflow_quietly()
    with garbage_collection_paused():
        from serving.model_store import ModelStoreError
        from serving.server.app import EmbeddedServer, PortUnavailableError
        from serving.server.config import ConfigFileError
        from serving.server.errors import ServingError
        from serving.server.options import TlsError

    try:
        server = EmbeddedServer(base_paths, _server_options(flags))
        server.run(
            lambda: _announce(server, "http" if flags["tls_certificate"] is None else "https", flags["playground"])
        )
    except PortUnavailableError as error:
        _fail(f"{error}. Choose another with --rest-port or --grpc-port.")
    except (ConfigFileError, TlsError) as error:
        _fail(f"{error}.")
    except ModelStoreError as error:
        _fail(str(error))
    except ServingError as error:
        _fail(f"{error.message}. See --allow-version-labels-for-unavailable-models.")
    click.echo("stopped")


def _announce(server: EmbeddedServer, scheme: str, playground: bool) -> None:
    rest = f"{scheme}://{server.host}:{server.rest_port}"
    models = ", ".join(server.model_names) or "no models yet"
    click.echo(f"serving {models}: REST on {rest}, gRPC on {server.host}:{server.grpc_port}")
    if playground:
        click.echo(f"playground: {rest}/")


def _fail(sentence: str) -> NoReturn:
    click.echo(f"Error: {sentence}", err=True)
    raise SystemExit(ExitStatus.BROKEN_INPUT) from None


def _check_flags(models: tuple[str, ...], flags: Mapping[str, Any]) -> None:
    if bool(models) == (flags["model_config_file"] is not None):
        raise click.UsageError("expected either --model NAME=BASE_PATH, once or several times, or --model-config-file.")
    if flags["batching_parameters_file"] is not None and not flags["enable_batching"]:
        raise click.UsageError("--batching-parameters-file is set without --enable-batching.")
    if flags["request_log"] is not None and flags["model_config_file"] is not None:
        raise click.UsageError("--request-log goes with --model; in a model config file logging_config says it.")
    if flags["request_log_sampling"] is not None and flags["request_log"] is None:
        raise click.UsageError("--request-log-sampling is set without --request-log.")
    if flags["allow_reload_config_from_anywhere"] and not flags["reload_roots"]:
        raise click.UsageError("--allow-reload-config-from-anywhere is set without --allow-reload-config.")
    if (flags["tls_certificate"] is None) != (flags["tls_key"] is None):
        raise click.UsageError("expected --tls-certificate and --tls-key together.")
    if flags["tls_client_ca"] is not None and flags["tls_key"] is None:
        raise click.UsageError("--tls-client-ca is set without --tls-certificate and --tls-key.")


def _server_options(flags: Mapping[str, Any]) -> ServerOptions:
    from serving.model_store import read_public_key
    from serving.server.config import BatchingParameters, LoadPolicy, read_batching_parameters, read_metrics_path
    from serving.server.options import ConnectionLimits, ReloadOptions, RequestLimits, ServerOptions

    batching = None
    if flags["batching_parameters_file"] is not None:
        batching = read_batching_parameters(flags["batching_parameters_file"])
    elif flags["enable_batching"]:
        batching = BatchingParameters()
    monitoring = flags["monitoring_config_file"]
    return ServerOptions(
        host=flags["host"],
        rest_port=flags["rest_port"],
        grpc_port=flags["grpc_port"],
        load_policy=LoadPolicy(
            poll_seconds=flags["poll_seconds"],
            allow_file_operations=flags["allow_file_operations"],
            wait_for_models=flags["wait_for_models"],
            warm_up=flags["enable_model_warmup"],
            signature_keys=tuple(read_public_key(path) for path in flags["signature_keys"]),
        ),
        model_config_file=flags["model_config_file"],
        model_config_file_poll_seconds=flags["model_config_file_poll_wait_seconds"],
        labels_may_wait=flags["allow_version_labels_for_unavailable_models"],
        batching=batching,
        metrics_path=read_metrics_path(monitoring) if monitoring is not None else None,
        rest_timeout_seconds=flags["rest_timeout_seconds"],
        limits=RequestLimits(
            **{name: flags[f"max_{name}"] for name in ("body_bytes", "tensor_bytes", "rows") if flags[f"max_{name}"]}
        ),
        memory=_memory_limits(flags),
        cors=flags["rest_api_enable_cors_support"],
        tls=_tls_files(flags),
        grpc_health=flags["enable_grpc_healthcheck_service"],
        grpc_reflection=flags["enable_grpc_reflection"],
        playground=flags["playground"],
        access_log=flags["access_log"],
        request_log=_request_log(flags),
        connections=ConnectionLimits(
            header_seconds=flags["header_timeout_seconds"],
            idle_seconds=flags["idle_timeout_seconds"],
            most=flags["max_connections"],
        ),
        reload=ReloadOptions(flags["reload_roots"], flags["allow_reload_config_from_anywhere"]),
    )


def _memory_limits(flags: Mapping[str, Any]) -> MemoryLimits:
    from serving.server.options import MemoryLimits

    one = flags["request_memory_budget"]
    if flags["memory_budget"] is None:
        return MemoryLimits(request_bytes=one)
    return MemoryLimits(flags["memory_budget"], one)


def _request_log(flags: Mapping[str, Any]) -> RequestLogOptions | None:
    from serving.server.config import RequestLogOptions

    prefix, rate = flags["request_log"], flags["request_log_sampling"]
    if prefix is None:
        return None
    try:
        return RequestLogOptions(prefix, 1.0 if rate is None else rate)
    except ValueError as error:
        raise click.UsageError(f"--request-log: {error}") from error


def _tls_files(flags: Mapping[str, Any]) -> TlsFiles | None:
    from serving.server.options import TlsFiles

    if flags["tls_certificate"] is None:
        return None
    files = TlsFiles(flags["tls_certificate"], flags["tls_key"], flags["tls_client_ca"] or "")
    files.ssl_context()  # a wrong file is told before the models are loaded
    return files


def _parse_models(models: tuple[str, ...]) -> dict[str, str]:
    base_paths: dict[str, str] = {}
    for model in models:
        name, _, base_path = model.partition("=")
        if not _NAME.fullmatch(name) or not base_path:
            raise click.BadParameter(
                f"expected NAME=BASE_PATH, such as heart=models/heart, received {model!r}", param_hint="--model"
            )
        if name in base_paths:
            raise click.BadParameter(
                f"{name} is given twice, and a name stands for one base path", param_hint="--model"
            )
        base_paths[name] = base_path
    return base_paths


def _import_tensorflow_quietly() -> None:
    """TensorFlow's C++ libraries write to the terminal while they are loaded, whatever their log level is."""
    from serving.loading import quiet_output

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_output(Path(os.devnull)), garbage_collection_paused():
        import tensorflow as tf
    tf.get_logger().setLevel(logging.ERROR)
