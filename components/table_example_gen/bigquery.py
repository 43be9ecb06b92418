"""BigQuery as a source of rows: a table, or what a query answers, read in streams of the Storage Read API."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, model_validator

from components.errors import BrokenInput

if TYPE_CHECKING:
    import pyarrow as pa
    from google.api_core.retry import Retry
    from google.cloud.bigquery import Client, TableReference
    from google.cloud.bigquery_storage import BigQueryReadClient

_SCHEME = "bigquery:"
# BigQuery gives as many as the size of a table is worth, and this at most; each is a piece of work for Beam.
MOST_STREAMS = 64
# What emulators are found by: a URL, which google-cloud-bigquery itself reads, and host:port.
REST_EMULATOR, STORAGE_EMULATOR = "BIGQUERY_EMULATOR_HOST", "BIGQUERY_STORAGE_GRPC_ENDPOINT"
# So long, in seconds, a server that does not answer is asked again; the clients' own 600 are long for a person.
_PATIENCE = 60.0


class BigQuerySource(BaseModel):
    """Where rows are: one of a table and a query.

    Attributes:
        table: `project.dataset.table`; no view, which the Storage Read API does not read.
        query: in GoogleSQL; its rows are the rows.
        project: that pays; by default the table's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: str | None = None
    query: str | None = Field(None, min_length=1)
    project: str | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _check(self) -> BigQuerySource:
        if (self.table is None) == (self.query is None):
            raise ValueError("give either table (project.dataset.table) or query")
        if self.query is not None and self.project is None:
            raise ValueError("project is missing: the Google Cloud project that pays for the query")
        parts = self._parts()
        if self.table is not None and (len(parts) != 3 or not all(parts) or set(self.table) & set("/#`\n")):
            raise ValueError(f"expected table as project.dataset.table, received {self.table!r}")
        return self

    def _parts(self) -> list[str]:
        # A project may have a dot in its name, as in example.com:project.
        return (self.table or "").rsplit(".", 2)

    def path(self) -> str:
        """The source as one line, which stands where other tables have the path of a file; see is_bigquery."""
        if self.query is not None:
            return f"{_SCHEME}{self.project}#{urllib.parse.quote(self.query, safe='')}"
        return _SCHEME + (f"{self.project}/" if self.project else "") + (self.table or "")

    @property
    def payer(self) -> str:
        """The project that pays."""
        return self.project or self._parts()[0]

    @property
    def resource(self) -> str:
        """The table's name in the Storage Read API."""
        return "projects/{}/datasets/{}/tables/{}".format(*self._parts())

    def __str__(self) -> str:
        return f"data.bigquery.table is {self.table}" if self.table else "data.bigquery.query"


def is_bigquery(path: str) -> bool:
    """Whether it is a BigQuerySource's path, or the name of a stream, and of no file."""
    return path.startswith(_SCHEME)


def _source_of(path: str) -> BigQuerySource:
    project, is_query, query = path.removeprefix(_SCHEME).partition("#")
    if is_query:
        return BigQuerySource(query=urllib.parse.unquote(query), project=project)
    payer, _, table = project.rpartition("/")
    return BigQuerySource(table=table, project=payer or None)


@dataclass(frozen=True)
class CurrentRows:
    """Rows as they are now.

    Attributes:
        path: of the table that holds them, of a query the one that holds its answer.
        fingerprint: the same one only where the rows are.
    """

    path: str
    fingerprint: str


def current_rows(source: BigQuerySource) -> CurrentRows:
    """Run the query, if it is one, and look at the table.

    A table's fingerprint changes with the time of its last modification. Rows that are being streamed into it change
    before that time does: as long as there are any, no two fingerprints are the same. BigQuery keeps the answer to a
    query for a day, in a table, and answers out of it as long as no table that the query reads has changed and the
    query gives the same rows each time; the fingerprint of an answer is that of this table.

    Source: BigQuery's reference of tables (lastModifiedTime, streamingBuffer), and "Use cached query results".

    Raises:
        BrokenInput: there are no credentials, no such table, no rows, no permission, or the query cannot be run.
    """
    with _sentences(source), _rest_client(source.payer) as client:
        table = client.get_table(_answer(client, source) or source.table, retry=_retry())
    if table.table_type not in (None, "TABLE", "SNAPSHOT"):
        raise BrokenInput(
            f"{source}: it is of type {table.table_type}, and the Storage Read API reads tables alone; "
            f"give the query SELECT * FROM `{source.table}` instead"
        )
    streaming = table.streaming_buffer is not None
    if table.num_rows == 0 and not streaming:
        raise _no_rows(source)
    modified = datetime.now(UTC) if streaming or table.modified is None else table.modified
    found = BigQuerySource(table=f"{table.project}.{table.dataset_id}.{table.table_id}", project=source.project)
    return CurrentRows(found.path(), f"{found.table} {modified.isoformat()}")


def _answer(client: Client, source: BigQuerySource) -> TableReference | None:
    """The table of a query's answer; None where there is no query."""
    from google.cloud.bigquery import QueryJobConfig

    if source.query is None:
        return None
    # Nothing is run: a config that is to read rows must not change any.
    planned = client.query(source.query, QueryJobConfig(dry_run=True, use_query_cache=False), retry=_retry())
    if planned.statement_type not in (None, "SELECT"):
        raise BrokenInput(f"{source}: it is a statement of type {planned.statement_type}; expected one SELECT")
    job = client.query(source.query, retry=_retry())
    job.result(retry=_retry())
    return job.destination


def read_streams(path: str) -> list[str]:
    """Open a read session, in which all streams and all times that they are read see the rows of one moment.

    A stream can be read anew for six hours. Which rows are in it, and in which order, is up to BigQuery.

    Args:
        path: of a BigQuerySource; of a query, it is run.

    Returns:
        the names of the streams, which stream_batches takes; MOST_STREAMS at most.

    Raises:
        BrokenInput: as current_rows, though a table is not looked at before.
    """
    from google.cloud.bigquery_storage import types

    source = _source_of(path)
    if source.query is not None:
        source, asked = _source_of(current_rows(source).path), source
    else:
        asked = source
    compressed = types.ArrowSerializationOptions(
        buffer_compression=types.ArrowSerializationOptions.CompressionCodec.LZ4_FRAME
    )
    wanted = types.ReadSession(
        table=source.resource,
        data_format=types.DataFormat.ARROW,
        read_options=types.ReadSession.TableReadOptions(arrow_serialization_options=compressed),
    )
    with _sentences(asked), _read_client() as client:
        session = client.create_read_session(
            parent=f"projects/{source.payer}",
            read_session=wanted,
            max_stream_count=MOST_STREAMS,
            retry=_retry(),
            timeout=_PATIENCE,
        )
    if not session.streams:
        raise _no_rows(asked)
    return [f"{_SCHEME}{stream.name}" for stream in session.streams]


def stream_batches(stream: str, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """The rows of a stream, in batches of about so many; the client goes on where a connection is lost.

    Raises:
        BrokenInput: it cannot be read.
    """
    import pyarrow as pa  # its threads would take the signals of a process that only reads a config

    name = stream.removeprefix(_SCHEME)
    schema: pa.Schema | None = None
    waiting: list[pa.RecordBatch] = []
    with _sentences(name), _read_client() as client:
        for message in client.read_rows(name):
            if schema is None:  # only the first message has it
                schema = pa.ipc.read_schema(pa.py_buffer(message.arrow_schema.serialized_schema))
            content = pa.py_buffer(message.arrow_record_batch.serialized_record_batch)
            waiting.append(pa.ipc.read_record_batch(content, schema))
            # Messages are small, and whatever is done with a batch costs something once.
            if sum(map(len, waiting)) >= batch_rows:
                yield from pa.Table.from_batches(waiting).combine_chunks().to_batches()
                waiting = []
        if waiting:
            yield from pa.Table.from_batches(waiting).combine_chunks().to_batches()


# Clients.


def _is_emulated() -> bool:
    given = [name for name in (REST_EMULATOR, STORAGE_EMULATOR) if os.environ.get(name)]
    if len(given) == 1:
        raise BrokenInput(
            f"of the environment variables {REST_EMULATOR} (http://host:port) and {STORAGE_EMULATOR} (host:port) only "
            f"{given[0]} is set; set both for an emulator, and none for BigQuery"
        )
    return bool(given)


def _rest_client(project: str) -> Client:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.bigquery import Client

    return Client(project, credentials=AnonymousCredentials() if _is_emulated() else None)


def _read_client() -> BigQueryReadClient:
    from google.cloud.bigquery_storage import BigQueryReadClient

    if not _is_emulated():
        return BigQueryReadClient()
    import grpc
    from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

    endpoint = os.environ[STORAGE_EMULATOR]
    channel = grpc.insecure_channel(endpoint, options=[("grpc.max_receive_message_length", -1)])
    return BigQueryReadClient(transport=BigQueryReadGrpcTransport(host=endpoint, channel=channel))


def _retry() -> Retry:
    from google.api_core import exceptions
    from google.api_core.retry import Retry, if_exception_type
    from requests.exceptions import ConnectionError as NoConnection

    passing = (exceptions.ServiceUnavailable, exceptions.BadGateway, exceptions.TooManyRequests, NoConnection)
    return Retry(if_exception_type(*passing), timeout=_PATIENCE)


# Errors.


def _no_rows(source: BigQuerySource) -> BrokenInput:
    nothing = "there are no rows in it" if source.table else "it answers no rows"
    return BrokenInput(f"{source}: {nothing}; expected at least one for each class")


@contextmanager
def _sentences(source: BigQuerySource | str) -> Iterator[None]:
    """What Google's clients raise, as a sentence about a source, or a stream of one."""
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError, TransportError
    from requests.exceptions import RequestException

    try:
        yield
    except (exceptions.GoogleAPICallError, exceptions.RetryError, RequestException, TransportError) as error:
        raise BrokenInput(_sentence(source, error)) from error
    except GoogleAuthError as error:
        raise BrokenInput(f"{source}: {_NO_CREDENTIALS}") from error


_NO_CREDENTIALS = (
    "there are no Google credentials here, or they hold no longer; `gcloud auth application-default login` makes some, "
    "and GOOGLE_APPLICATION_CREDENTIALS names a key file"
)


def _sentence(source: BigQuerySource | str, error: Exception) -> str:
    from google.api_core import exceptions

    reason = _reason(error)
    if isinstance(error, exceptions.Unauthorized):
        return f"{source}: {_NO_CREDENTIALS}"
    if isinstance(source, BigQuerySource):
        if isinstance(error, exceptions.Forbidden):
            role = " and roles/bigquery.jobUser" if source.query else ""
            return (
                f"{source}: BigQuery refuses it: {reason}; the credentials need roles/bigquery.dataViewer for the "
                f"data, and roles/bigquery.readSessionUser{role} in the project {source.payer}"
            )
        if isinstance(error, exceptions.NotFound):
            return f"{source}: BigQuery does not find it: {reason}; mend the name, or see that it is there"
        if isinstance(error, exceptions.BadRequest):
            advice = "mend the query" if source.query else f"a view needs the query SELECT * FROM `{source.table}`"
            return f"{source}: BigQuery cannot read it: {reason}; {advice}"
    return f"{source}: BigQuery stopped answering: {reason}; run the same command again to go on"


def _reason(error: Exception) -> str:
    """What the server says, without the address that was asked."""
    said = [str(part.get("message", "")) for part in getattr(error, "errors", ()) if isinstance(part, dict)]
    text = next(filter(None, said), "") or getattr(error, "message", "") or str(error)
    return " ".join(text.split()).rstrip(".") or type(error).__name__
