"""`ingraph serve`."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import click

from pipeline.exit_status import ExitStatus

_NAME = re.compile(r"[^/:=\s]+")


@click.command()
@click.option(
    "--model",
    "models",
    metavar="NAME=BASE_PATH",
    multiple=True,
    required=True,
    help="A model and its base path, the directory that holds <version>/saved_model.pb. May be given several times.",
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
def serve(models: tuple[str, ...], rest_port: int, grpc_port: int, host: str, poll_seconds: float) -> None:
    """Serve published models over REST and gRPC, as TensorFlow Serving does.

    Serves the largest version in each base path, takes up new and withdrawn versions while requests go on, and prints
    one line when both ports are open: when every model is available, or cannot be loaded. Ctrl-C or SIGTERM
    stops it once the requests in flight are answered.

    \b
    ingraph serve --model heart=models/heart
    curl -d '{"inputs": {"age": [63], …}}' http://127.0.0.1:8501/v1/models/heart:predict

    Exit status: 0 when stopped, 2 when a port cannot be opened or the command line is wrong.
    """
    base_paths = _parse_models(models)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("serving").setLevel(logging.INFO)
    _import_tensorflow_quietly()
    from serving.server.embedded_server import EmbeddedServer, PortUnavailableError
    from serving.server.load_policy import LoadPolicy
    from serving.server.server_options import ServerOptions

    options = ServerOptions(
        host=host, rest_port=rest_port, grpc_port=grpc_port, load_policy=LoadPolicy(poll_seconds=poll_seconds)
    )
    server = EmbeddedServer(base_paths, options)

    def announce() -> None:
        click.echo(
            f"serving {', '.join(base_paths)}: REST on http://{server.host}:{server.rest_port}, "
            f"gRPC on {server.host}:{server.grpc_port}"
        )

    try:
        server.run(announce)
    except PortUnavailableError as error:
        click.echo(f"Error: {error}. Choose another with --rest-port or --grpc-port.", err=True)
        raise SystemExit(ExitStatus.BROKEN_INPUT) from None
    click.echo("stopped")


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
    from pipeline.quiet_output import quiet_output

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_output(Path(os.devnull)):
        import tensorflow as tf
    tf.get_logger().setLevel(logging.ERROR)
