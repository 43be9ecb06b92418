"""Show that a published model answers."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.table_file import TableFile
from pipeline.config import RunConfig
from pipeline.run_screen import RunScreen


@dataclass(frozen=True)
class _Question:
    """One example, as it is sent and as a person reads it."""

    rest: Mapping[str, Sequence[Any]]
    grpc: Mapping[str, Sequence[Any]]
    shown: Mapping[str, str]


def ask_once(config: RunConfig, base_path: str, data: str, screen: RunScreen) -> None:
    """Serve a model for a moment, and ask it for the first row or photo of its data over REST and over gRPC.

    Args:
        config: of the run that published it.
        base_path: the model base path.
        data: what the run learned from, see pipeline.raw_data.
        screen: shows the answers.
    """
    from serving.client.grpc_client import GrpcClient
    from serving.client.rest_client import RestClient
    from serving.server.embedded_server import EmbeddedServer
    from serving.server.load_policy import LoadPolicy
    from serving.server.server_options import ServerOptions

    name = config.name
    options = ServerOptions(rest_port=0, grpc_port=0, load_policy=LoadPolicy(load_retries=0))
    with (
        EmbeddedServer({name: base_path}, options) as server,
        RestClient(server.host, server.rest_port) as rest,
        GrpcClient(server.host, server.grpc_port) as grpc,
    ):
        if config.task == "image":
            question = _photo(data)
        else:
            inputs = rest.metadata(name).signatures["serving_default"].inputs
            question = _row(TableFile(data, config.data.format), inputs, config.preprocessing.renamed_inputs())
        screen.answer("REST", question.shown, rest.predict(name, question.rest)["output_0"][0])
        screen.answer("gRPC", question.shown, grpc.predict(name, question.grpc)["output_0"][0].decode())
    asked = [*question.shown.values()] if config.task == "image" else [f"{k}={v}" for k, v in question.shown.items()]
    screen.what_next(name, base_path, asked)


def _row(table: TableFile, inputs: Mapping[str, Any], renamed_inputs: Mapping[str, str]) -> _Question:
    from serving.client.table_columns import table_columns

    row = next(table.rows()).fields
    row |= {name: row[column] for name, column in renamed_inputs.items()}
    columns = table_columns([row], inputs, table.path)
    return _Question(columns, columns, {column: row[column] for column in inputs})


def _photo(data: str) -> _Question:
    from components.image_example_gen.list_photos import list_photos

    file = list_photos(data)[0].file
    content = Path(file).read_bytes()
    return _Question({"image": [base64.urlsafe_b64encode(content).decode()]}, {"image": [content]}, {"image": file})
