"""What BigQuery does for whoever reads a table, on 127.0.0.1: a part of its REST API, and the Storage Read API."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types

from components.table_example_gen.bigquery import REST_EMULATOR, STORAGE_EMULATOR


@dataclass
class StoredTable:
    """A table of BigQuery, its rows in the Arrow types that the Storage Read API sends.

    Attributes:
        rows: of the table.
        modified: when, in milliseconds.
        type: as the REST API names it.
        streamed: whether rows are being streamed into it.
    """

    rows: pa.Table
    modified: int = 1_700_000_000_000
    type: str = "TABLE"
    streamed: bool = False


@dataclass(frozen=True)
class Answer:
    """What a query is answered.

    Attributes:
        rows: makes them.
        reads: names of the tables that it reads.
        statement: its type.
        volatile: whether it is another one each time.
    """

    rows: Callable[[], pa.Table]
    reads: tuple[str, ...] = ()
    statement: str = "SELECT"
    volatile: bool = False


class Refused(Exception):
    """An answer that is an error: its HTTP status, and what it says."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass
class BigQueryServer:
    """Its tables by `project.dataset.table`, and how it behaves.

    Attributes:
        answers: query -> its answer; another one is a syntax error.
        streams: how many a session has.
        message_rows: how many a message has.
        breaks: how often a stream breaks off after its first message before it is read to the end.
        forbidden: projects that nobody may read in.
        sessions: tables of the sessions that were opened, and the most streams that were wanted.
        environment: what leads clients here.
        ran: queries that were run, without those that were only planned.
    """

    tables: dict[str, StoredTable] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    streams: int = 3
    message_rows: int = 40
    breaks: int = 0
    forbidden: set[str] = field(default_factory=set)
    sessions: list[tuple[str, int]] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    _parts: dict[str, pa.Table] = field(default_factory=dict)
    _jobs: dict[str, dict[str, Any]] = field(default_factory=dict)

    # The Storage Read API.

    def create_read_session(self, request: types.CreateReadSessionRequest, context: Any) -> types.ReadSession:
        wanted = request.read_session
        _, project, _, dataset, _, name = wanted.table.split("/")
        payer = request.parent.removeprefix("projects/")
        if payer in self.forbidden:
            context.abort(
                grpc.StatusCode.PERMISSION_DENIED, f"Permission 'bigquery.readsessions.create' denied {payer}"
            )
        table = self.tables.get(f"{project}.{dataset}.{name}")
        if table is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Not found: Table {project}:{dataset}.{name}")
        if table.type == "VIEW":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "non-table entities cannot be read with the storage API")
        assert wanted.data_format == types.DataFormat.ARROW
        self.sessions.append((f"{project}.{dataset}.{name}", request.max_stream_count))
        session = f"projects/{payer}/locations/eu/sessions/{len(self.sessions)}"
        # Which rows are in which stream, and in which order, is another matter in each session.
        order = np.random.default_rng(len(self.sessions)).permutation(table.rows.num_rows)
        count = min(self.streams, request.max_stream_count) if len(order) else 0
        names = [f"{session}/streams/{number}" for number in range(count)]
        for number, stream in enumerate(names):
            self._parts[stream] = table.rows.take(pa.array(order[number::count]))
        schema = types.ArrowSchema(serialized_schema=table.rows.schema.serialize().to_pybytes())
        return types.ReadSession(
            name=session, arrow_schema=schema, streams=[types.ReadStream(name=stream) for stream in names]
        )

    def read_rows(self, request: types.ReadRowsRequest, context: Any) -> Iterator[types.ReadRowsResponse]:
        if request.read_stream not in self._parts:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "there was an error operating on the session: expired")
        part = self._parts[request.read_stream]
        for start in range(request.offset, part.num_rows, self.message_rows):
            (batch,) = part.slice(start, self.message_rows).combine_chunks().to_batches()
            response = types.ReadRowsResponse(
                row_count=len(batch),
                arrow_record_batch=types.ArrowRecordBatch(serialized_record_batch=compressed_message(batch)),
            )
            if start == request.offset:
                response.arrow_schema = types.ArrowSchema(serialized_schema=part.schema.serialize().to_pybytes())
            yield response
            if self.breaks:
                self.breaks -= 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "the connection was reset")

    # The REST API.

    def get(self, parts: list[str]) -> dict[str, Any]:
        """A resource by the parts of its path behind the version."""
        match parts:
            case ["projects", project, "datasets", dataset, "tables", name]:
                return self._table(project, dataset, name)
            case ["projects", _, "queries", job]:
                return {**self._jobs[job], "jobComplete": True, "totalRows": "0"}
            case ["projects", _, "jobs", job]:
                return self._jobs[job]
        raise Refused(404, f"nothing at {'/'.join(parts)}")

    def _table(self, project: str, dataset: str, name: str) -> dict[str, Any]:
        if project in self.forbidden:
            raise Refused(403, f"Access Denied: Table {project}:{dataset}.{name}: User does not have permission")
        table = self.tables.get(f"{project}.{dataset}.{name}")
        if table is None:
            raise Refused(404, f"Not found: Table {project}:{dataset}.{name}")
        found = {
            "id": f"{project}:{dataset}.{name}",
            "tableReference": {"projectId": project, "datasetId": dataset, "tableId": name},
            "type": table.type,
            "numRows": str(table.rows.num_rows),
            "lastModifiedTime": str(table.modified),
        }
        return {**found, "streamingBuffer": {"estimatedRows": "1"}} if table.streamed else found

    def insert_job(self, project: str, job: dict[str, Any]) -> dict[str, Any]:
        """Plan or run a query."""
        if project in self.forbidden:
            raise Refused(403, f"Access Denied: Project {project}: User does not have bigquery.jobs.create permission")
        query = job["configuration"]["query"]["query"]
        if query not in self.answers:
            raise Refused(400, f"Syntax error: Unexpected identifier {query.split()[0]!r} at [1:1]")
        answer = self.answers[query]
        missing = [name for name in answer.reads if name not in self.tables]
        if missing:
            raise Refused(404, f"Not found: Table {missing[0].replace('.', ':', 1)} was not found in location EU")
        reference = job["jobReference"]
        done = {
            "jobReference": reference,
            "configuration": job["configuration"],
            "status": {"state": "DONE"},
            "statistics": {"query": {"statementType": answer.statement}},
        }
        if not job["configuration"].get("dryRun"):
            self.ran.append(query)
            done["configuration"]["query"]["destinationTable"] = self._kept(project, query, answer)
            self._jobs[reference["jobId"]] = done
        return done

    def _kept(self, project: str, query: str, answer: Answer) -> dict[str, str]:
        """The table of an answer, the same one where nothing changed."""
        state = [query, *(str(self.tables[name].modified) for name in answer.reads)]
        state += [str(len(self.ran))] * answer.volatile
        name = "anon" + hashlib.sha256("".join(state).encode()).hexdigest()[:12]
        if f"{project}._kept.{name}" not in self.tables:
            self.tables[f"{project}._kept.{name}"] = StoredTable(answer.rows(), 1_800_000_000_000 + len(self.tables))
        return {"projectId": project, "datasetId": "_kept", "tableId": name}


def compressed_message(batch: pa.RecordBatch) -> bytes:
    """A record batch as an encapsulated IPC message without its schema, its buffers compressed by LZ4."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_batch(batch)
    _, message = pa.ipc.MessageReader.open_stream(sink.getvalue())
    return message.serialize().to_pybytes()


def _handler(server: BigQueryServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(lambda: server.get(self._parts()))

        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(lambda: server.insert_job(self._parts()[1], content))

        def _parts(self) -> list[str]:
            return self.path.partition("?")[0].removeprefix("/bigquery/v2/").split("/")

        def _answer(self, make: Callable[[], dict[str, Any]]) -> None:
            try:
                status, content = 200, make()
            except Refused as refused:
                error = {"message": refused.message, "reason": "refused", "domain": "global"}
                status = refused.status
                content = {"error": {"code": status, "message": refused.message, "errors": [error]}}
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@contextmanager
def serve_bigquery() -> Iterator[BigQueryServer]:
    """A server with no tables yet, on free ports."""
    server = BigQueryServer()
    handlers = {
        "CreateReadSession": grpc.unary_unary_rpc_method_handler(
            server.create_read_session, types.CreateReadSessionRequest.deserialize, types.ReadSession.serialize
        ),
        "ReadRows": grpc.unary_stream_rpc_method_handler(
            server.read_rows, types.ReadRowsRequest.deserialize, types.ReadRowsResponse.serialize
        ),
    }
    storage = grpc.server(ThreadPoolExecutor(16))
    service = "google.cloud.bigquery.storage.v1.BigQueryRead"
    storage.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
    server.environment[STORAGE_EMULATOR] = f"127.0.0.1:{storage.add_insecure_port('127.0.0.1:0')}"
    storage.start()
    rest = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    server.environment[REST_EMULATOR] = f"http://127.0.0.1:{rest.server_port}"
    thread = threading.Thread(target=rest.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        rest.shutdown()
        rest.server_close()
        thread.join()
        storage.stop(None).wait()
