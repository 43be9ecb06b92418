"""Show that a published model answers."""

from __future__ import annotations

from collections.abc import Mapping

from components.table_file import TableFile
from pipeline.run_screen import RunScreen


def ask_once(name: str, base_path: str, table: TableFile, renamed_inputs: Mapping[str, str], screen: RunScreen) -> None:
    """Serve a model for a moment, and ask it for the first row of its data over REST and over gRPC.

    Args:
        name: what to call the model.
        base_path: the model base path.
        table: its data.
        renamed_inputs: the column behind each input of another name.
        screen: shows the answers.
    """
    from serving.client.grpc_client import GrpcClient
    from serving.client.rest_client import RestClient
    from serving.client.table_columns import table_columns
    from serving.server.embedded_server import EmbeddedServer
    from serving.server.load_policy import LoadPolicy
    from serving.server.server_options import ServerOptions

    row = next(table.rows()).fields
    row |= {name: row[column] for name, column in renamed_inputs.items()}
    options = ServerOptions(rest_port=0, grpc_port=0, load_policy=LoadPolicy(load_retries=0))
    with (
        EmbeddedServer({name: base_path}, options) as server,
        RestClient(server.host, server.rest_port) as rest,
        GrpcClient(server.host, server.grpc_port) as grpc,
    ):
        inputs = rest.metadata(name).signatures["serving_default"].inputs
        columns = table_columns([row], inputs, table.path)
        asked = {column: row[column] for column in inputs}
        screen.answer("REST", asked, rest.predict(name, columns)["output_0"][0])
        screen.answer("gRPC", asked, grpc.predict(name, columns)["output_0"][0].decode())
    screen.what_next(name, base_path, asked)
