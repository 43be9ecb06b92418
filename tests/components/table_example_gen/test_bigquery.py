"""Rows of BigQuery, read by its own clients from a server on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path

import ml_metadata
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow as tf
from pydantic import ValidationError
from tfx.orchestration import metadata, pipeline
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.types import standard_artifacts

from components.errors import BrokenInput
from components.table_example_gen import bigquery, executor
from components.table_example_gen.bigquery import BigQuerySource, current_rows, read_streams, stream_batches
from components.table_example_gen.component import BigQueryExampleGen, TableExampleGen
from components.table_example_gen.executor import REPORT_FILE, BigQueryExecutor, Executor
from components.table_example_gen.options import Ingestion, TableReading
from components.table_example_gen.serialization import TEXT
from components.table_example_gen.sources import plan_inputs, shard_batches
from pipeline.runners.local import BEAM_PIPELINE_ARGS
from tests.components.table_example_gen.bigquery_server import Answer, BigQueryServer, StoredTable, serve_bigquery

TABLE = "shop.sales.visits"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BigQueryServer]:
    with serve_bigquery() as started:
        for name, address in started.environment.items():
            monkeypatch.setenv(name, address)
        yield started


def examples_of(component: BigQueryExampleGen | TableExampleGen, output: Path) -> standard_artifacts.Examples:
    artifact = standard_artifacts.Examples()
    artifact.uri = str(output)
    kind = BigQueryExecutor if isinstance(component, BigQueryExampleGen) else Executor
    context = kind.Context(beam_pipeline_args=BEAM_PIPELINE_ARGS, tmp_dir=str(output / "tmp"), unique_id="1")
    kind(context).Do({}, {"examples": [artifact]}, component.exec_properties)
    return artifact


def from_bigquery(output: Path, source: BigQuerySource | None = None, **options: object) -> standard_artifacts.Examples:
    source = source or BigQuerySource(table=TABLE)
    return examples_of(BigQueryExampleGen(source.path(), "now", Ingestion(**options)), output)


def from_parquet(rows: pa.Table, output: Path, **options: object) -> standard_artifacts.Examples:
    output.mkdir()
    pa.parquet.write_table(rows, output / "rows.parquet")
    return examples_of(TableExampleGen(str(output), {"all": "rows.parquet"}, Ingestion(**options)), output / "examples")


def files(artifact: standard_artifacts.Examples) -> dict[str, bytes]:
    return {
        str(path.relative_to(artifact.uri)): path.read_bytes() for path in sorted(Path(artifact.uri).glob("Split-*/*"))
    }


def records(artifact: standard_artifacts.Examples, split: str) -> list[bytes]:
    paths = sorted(str(path) for path in Path(artifact.uri, f"Split-{split}").iterdir())
    return list(tf.data.TFRecordDataset(paths, "GZIP").as_numpy_iterator())


def every_type(count: int = 100) -> pa.Table:
    """A column of each type of BigQuery's, as the Storage Read API sends it; every fifth value is NULL."""

    def column(kind: pa.DataType, value: object) -> pa.Array:
        return pa.array([None if row % 5 == 4 else value(row) for row in range(count)], kind)  # type: ignore[operator]

    day = datetime(2026, 1, 31, 12, 0, 0, 250_000)
    return pa.table(
        {
            "int64": column(pa.int64(), lambda row: row - 50),
            "float64": column(pa.float64(), lambda row: row / 4),
            "numeric": column(pa.decimal128(38, 9), lambda row: Decimal(row) / 8),
            "bignumeric": column(pa.decimal256(76, 38), lambda row: Decimal(row) / 8),
            "bool": column(pa.bool_(), lambda row: row % 2 == 0),
            "string": column(pa.string(), lambda row: f" text {row}é"),
            "bytes": column(pa.binary(), lambda row: bytes([row, 255])),
            "date": column(pa.date32(), lambda row: date(2026, 1, 1 + row % 28)),
            "datetime": column(pa.timestamp("us"), lambda row: day),
            "timestamp": column(pa.timestamp("us", "UTC"), lambda row: day),
            "time": column(pa.time64("us"), lambda row: time(1, 2, 3, row)),
            "array": pa.array([[row, -row][: row % 3] for row in range(count)], pa.list_(pa.int64())),
            "texts": pa.array([["a", "b"][: row % 3] for row in range(count)], pa.list_(pa.string())),
            "struct": column(pa.struct({"x": pa.int64()}), lambda row: {"x": row}),
            "interval": column(pa.month_day_nano_interval(), lambda row: (1, 2, row)),
            "nothing": pa.nulls(count, pa.string()),
        }
    )


def feature_of(examples: list[bytes], number: int) -> dict[str, list[object]]:
    """Column -> values, of the row whose `int64` is this."""
    features = [tf.train.Example.FromString(example).features.feature for example in examples]
    (found,) = [feature for feature in features if list(feature["int64"].int64_list.value) == [number]]
    return {name: list(getattr(found[name], found[name].WhichOneof("kind") or "int64_list").value) for name in found}


def test_every_type_becomes_what_it_becomes_in_parquet(server, tmp_path):
    rows = every_type()
    server.tables[TABLE] = StoredTable(rows)
    artifact = from_bigquery(tmp_path / "out")
    report = json.loads((tmp_path / "out" / REPORT_FILE).read_text())

    every = [*records(artifact, "train"), *records(artifact, "eval")]
    assert len(every) == 100
    assert feature_of(every, 3 - 50) == {
        "int64": [-47],
        "float64": [0.75],
        "numeric": [0.375],
        "bignumeric": [0.375],
        "bool": [b"False"],
        "string": ["text 3é".encode()],
        "bytes": [b"\x03\xff"],
        "date": [b"2026-01-04"],
        "datetime": [b"2026-01-31 12:00:00.25"],
        "timestamp": [b"2026-01-31 12:00:00.25+00:00"],
        "time": [b"01:02:03.000003"],
        "array": [],
        "texts": [],
        "nothing": [],
    }
    assert feature_of(every, 8 - 50)["array"] == [8, -8]
    assert feature_of(every, 8 - 50)["texts"] == [b"a", b"b"]
    missing = [tf.train.Example.FromString(one).features.feature for one in every]
    (kinds,) = {tuple(sorted(feature)) for feature in missing}  # a feature is there where its value is not
    assert len(kinds) == 14
    assert sum(not feature["date"].bytes_list.value for feature in missing) == 20
    assert report["left_out"] == {"struct": "struct<x: int64>", "interval": "month_day_nano_interval"}
    # pyarrow writes no interval to Parquet.
    parquet = from_parquet(rows.drop_columns("interval"), tmp_path / "parquet")
    assert files(artifact) == files(parquet)


SPLITS = [
    {},
    {"split": {"time": "when"}, "test_share": 0.1},
    {"split": {"group": "who"}},
    {"split": {"column": "split"}, "test_share": 0.1},
    {"text_column": "text", "reading": {"as_text": True, "strip": False}},
]


def visits(count: int = 1_500) -> pa.Table:
    generator = np.random.default_rng(0)
    return pa.table(
        {
            "when": pa.array(
                generator.permutation(count) * 60_000_000 + 1_700_000_000_000_000, pa.timestamp("us", "UTC")
            ),
            "who": pa.array([f"customer {number}" for number in generator.integers(0, 90, count)]),
            "split": pa.array(generator.choice(["train", "eval", "test"], count)),
            "text": pa.array(
                [("Good, really: {}" if row % 2 else "good really {}").format(row // 3) for row in range(count)]
            ),
            "sum": pa.array(generator.normal(size=count)),
        }
    )


@pytest.mark.parametrize("options", SPLITS, ids=["hash", "time", "group", "column", "near-duplicates"])
def test_how_rows_are_divided_into_streams_changes_no_byte(server, tmp_path, monkeypatch, options):
    monkeypatch.setattr(executor, "BATCH_ROWS", 400)
    rows = visits()
    server.tables[TABLE] = StoredTable(rows)
    found = {}
    for server.streams, server.message_rows in ((2, 100), (5, 33)):
        artifact = from_bigquery(tmp_path / str(server.streams), **options)
        found[server.streams] = files(artifact)
    assert found[2] == found[5]
    splits = ["train", "eval", "test"] if "test_share" in options else ["train", "eval"]
    numbers = [f"Split-{split}/data_tfrecord-{number:05d}-of-00004.gz" for split in splits for number in range(4)]
    assert sorted(found[2]) == sorted(numbers)
    # Parquet has the same rows in the same splits; their order is that of its row groups.
    parquet = from_parquet(rows, tmp_path / "parquet", **options)
    assert {split: sorted(records(artifact, split)) for split in splits} == {
        split: sorted(records(parquet, split)) for split in splits
    }


def test_a_stream_that_breaks_off_is_read_on_and_no_row_comes_twice(server):
    server.tables[TABLE] = StoredTable(visits(300))
    server.breaks = 3
    streams = read_streams(BigQuerySource(table=TABLE).path())
    sums = [value for stream in streams for batch in stream_batches(stream, 50) for value in batch["sum"].to_pylist()]
    assert server.breaks == 0
    assert sorted(sums) == sorted(server.tables[TABLE].rows["sum"].to_pylist())


def test_messages_are_put_together_into_batches(server):
    server.tables[TABLE] = StoredTable(visits(300))
    server.streams, server.message_rows = 1, 20
    (stream,) = read_streams(BigQuerySource(table=TABLE).path())
    assert [len(batch) for batch in stream_batches(stream, 100)] == [100, 100, 100]
    assert server.sessions == [(TABLE, bigquery.MOST_STREAMS)]


def test_a_query_is_read_out_of_the_table_of_its_answer(server, tmp_path):
    server.tables[TABLE] = StoredTable(visits(200))
    query = "SELECT `sum`, who\nFROM `shop.sales.visits` -- 100 %, *"
    server.answers[query] = Answer(lambda: server.tables[TABLE].rows.select(["sum", "who"]), (TABLE,))
    source = BigQuerySource(query=query, project="payer")
    artifact = from_bigquery(tmp_path / "out", source)
    assert server.ran == [query]
    ((table, _),) = server.sessions
    assert table.startswith("payer._kept.anon")
    parquet = from_parquet(server.tables[TABLE].rows.select(["sum", "who"]), tmp_path / "parquet")
    assert files(artifact) == files(parquet)


def test_a_fingerprint_is_the_same_only_where_the_rows_are(server):
    table = BigQuerySource(table=TABLE)
    server.tables[TABLE] = StoredTable(visits(50))
    first = current_rows(table)
    assert first.path == table.path() == f"bigquery:{TABLE}"
    assert current_rows(table) == first
    server.tables[TABLE].modified += 1
    changed = current_rows(table)
    assert changed.fingerprint != first.fingerprint
    server.tables[TABLE].streamed = True
    assert len({current_rows(table).fingerprint, current_rows(table).fingerprint, changed.fingerprint}) == 3


def test_the_answer_to_a_query_is_the_same_as_long_as_bigquery_says_so(server):
    server.tables[TABLE] = StoredTable(visits(50))
    server.answers["SELECT 1"] = Answer(lambda: server.tables[TABLE].rows, (TABLE,))
    server.answers["SELECT RAND()"] = Answer(lambda: server.tables[TABLE].rows, (TABLE,), volatile=True)
    source = BigQuerySource(query="SELECT 1", project="shop")
    first = current_rows(source)
    assert current_rows(source) == first
    server.tables[TABLE].modified += 1
    assert current_rows(source).fingerprint != first.fingerprint
    volatile = BigQuerySource(query="SELECT RAND()", project="shop")
    assert current_rows(volatile).fingerprint != current_rows(volatile).fingerprint


def test_the_cache_answers_only_where_nothing_changed(server, tmp_path):
    server.tables[TABLE] = StoredTable(visits(50))
    database = metadata.sqlite_metadata_connection_config(str(tmp_path / "metadata.sqlite"))

    def states() -> list[str]:
        rows = current_rows(BigQuerySource(table=TABLE))
        LocalDagRunner().run(
            pipeline.Pipeline(
                pipeline_name="visits",
                pipeline_root=str(tmp_path / "root"),
                components=[BigQueryExampleGen(rows.path, rows.fingerprint, Ingestion())],
                enable_cache=True,
                metadata_connection_config=database,
                beam_pipeline_args=BEAM_PIPELINE_ARGS,
            )
        )
        kind = f"{BigQueryExampleGen.__module__}.{BigQueryExampleGen.__name__}"
        executions = ml_metadata.MetadataStore(database).get_executions_by_type(kind)
        return [ml_metadata.proto.Execution.State.Name(execution.last_known_state) for execution in executions]

    assert states() == ["COMPLETE"]
    assert states() == ["COMPLETE", "CACHED"]
    server.tables[TABLE].modified += 1
    assert states() == ["COMPLETE", "CACHED", "COMPLETE"]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (
            {"table": "shop.sales.vists"},
            r"^data\.bigquery\.table is shop\.sales\.vists: BigQuery does not find it: Not found: Table "
            r"shop:sales\.vists; mend the name, or see that it is there$",
        ),
        ({"table": "shop.sales.empty"}, r"table is shop\.sales\.empty: there are no rows in it; expected at least one"),
        ({"table": "shop.sales.view"}, r"is of type VIEW.*give the query SELECT \* FROM `shop\.sales\.view` instead$"),
        (
            {"table": "secret.sales.visits"},
            r"BigQuery refuses it: Access Denied: .*the credentials need roles/bigquery\.dataViewer for the data, and "
            r"roles/bigquery\.readSessionUser in the project secret$",
        ),
        (
            {"query": "SELECT 1", "project": "secret"},
            r"^data\.bigquery\.query: BigQuery refuses it: .*jobs\.create.*jobUser in the project secret$",
        ),
        (
            {"query": "SELEKT 1", "project": "shop"},
            r"^data\.bigquery\.query: BigQuery cannot read it: Syntax error: Unexpected identifier 'SELEKT' at "
            r"\[1:1\]; mend the query$",
        ),
        (
            {"query": "SELECT lost", "project": "shop"},
            r"^data\.bigquery\.query: BigQuery does not find it: Not found: Table shop:sales\.lost was not found",
        ),
        ({"query": "SELECT nothing", "project": "shop"}, r"query: it answers no rows; expected at least one for each"),
        (
            {"query": "DELETE 1", "project": "shop"},
            r"^data\.bigquery\.query: it is a statement of type DELETE; expected one SELECT$",
        ),
    ],
)
def test_what_cannot_be_read_is_a_sentence(server, source, sentence):
    server.tables["shop.sales.empty"] = StoredTable(visits(0))
    server.tables["shop.sales.view"] = StoredTable(visits(1), type="VIEW")
    server.answers = {
        "SELECT lost": Answer(lambda: visits(1), ("shop.sales.lost",)),
        "SELECT nothing": Answer(lambda: visits(0)),
        "DELETE 1": Answer(lambda: visits(1), statement="DELETE"),
    }
    server.forbidden = {"secret"}
    with pytest.raises(BrokenInput, match=sentence):
        current_rows(BigQuerySource(**source))
    assert "DELETE 1" not in server.ran


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("shop.sales.vists", r"^data\.bigquery\.table is shop\.sales\.vists: BigQuery does not find it: Not found"),
        ("shop.sales.empty", r"there are no rows in it"),
        ("shop.sales.view", r"non-table entities cannot be read.*; a view needs the query SELECT \* FROM `shop\.sales"),
        ("secret.sales.visits", r"Permission 'bigquery\.readsessions\.create' denied.*roles/bigquery\.readSessionUser"),
    ],
)
def test_so_it_is_where_the_first_to_ask_is_the_step(server, table, sentence):
    server.tables["shop.sales.empty"] = StoredTable(visits(0))
    server.tables["shop.sales.view"] = StoredTable(visits(1), type="VIEW")
    server.forbidden = {"secret"}
    with pytest.raises(BrokenInput, match=sentence):
        read_streams(BigQuerySource(table=table).path())


def test_a_stream_that_is_gone_is_a_sentence_out_of_beam(server, tmp_path, monkeypatch):
    server.tables[TABLE] = StoredTable(visits(50))
    gone = "bigquery:projects/shop/locations/eu/sessions/9/streams/0"
    monkeypatch.setattr("components.table_example_gen.sources.read_streams", lambda path: [gone])
    with pytest.raises(
        BrokenInput, match=r"streams/0: BigQuery stopped answering: .*expired; run the same command again"
    ):
        from_bigquery(tmp_path / "out")


def test_without_credentials_the_sentence_says_how_to_get_some(monkeypatch, tmp_path):
    for name in (bigquery.REST_EMULATOR, bigquery.STORAGE_EMULATOR):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    for ask in (
        lambda: current_rows(BigQuerySource(table=TABLE)),
        lambda: read_streams(BigQuerySource(table=TABLE).path()),
    ):
        with pytest.raises(
            BrokenInput, match=r"table is .*no Google credentials here.*gcloud auth application-default"
        ):
            ask()


def test_half_an_emulator_is_refused(monkeypatch):
    monkeypatch.setenv(bigquery.REST_EMULATOR, "http://127.0.0.1:1")
    monkeypatch.delenv(bigquery.STORAGE_EMULATOR, raising=False)
    with pytest.raises(BrokenInput, match="only BIGQUERY_EMULATOR_HOST is set; set both for an emulator, and none for"):
        current_rows(BigQuerySource(table=TABLE))


def test_a_server_that_is_not_there_is_a_sentence(monkeypatch):
    monkeypatch.setattr(bigquery, "_PATIENCE", 0.5)
    monkeypatch.setenv(bigquery.REST_EMULATOR, "http://127.0.0.1:1")
    monkeypatch.setenv(bigquery.STORAGE_EMULATOR, "127.0.0.1:1")
    for ask in (
        lambda: current_rows(BigQuerySource(table=TABLE)),
        lambda: read_streams(BigQuerySource(table=TABLE).path()),
    ):
        with pytest.raises(BrokenInput, match=rf"^data\.bigquery\.table is {TABLE}: BigQuery stopped answering: "):
            ask()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "give either table"),
        ({"table": TABLE, "query": "SELECT 1"}, "give either table"),
        ({"table": "visits"}, r"expected table as project\.dataset\.table, received 'visits'"),
        ({"table": "`a.b.c`"}, "expected table as"),
        ({"query": "SELECT 1"}, "project is missing: the Google Cloud project that pays for the query"),
    ],
)
def test_a_source_that_is_none_is_refused(given, sentence):
    with pytest.raises(ValidationError, match=sentence):
        BigQuerySource(**given)


def test_texts_are_taken_as_bigquery_writes_them(server):
    server.tables[TABLE] = StoredTable(pa.table({"text": ["  a ", None], "tags": pa.array([["x", "y"], []])}))
    server.streams = 1
    reading = TableReading(as_text=True, strip=False)
    (shard,) = plan_inputs({"all": BigQuerySource(table=TABLE).path()}, Ingestion(reading=reading))
    (batch,) = shard_batches(shard, reading, {"text": TEXT, "tags": TEXT})
    assert sorted(batch.to_pylist(), key=str) == [
        {"text": None, "tags": b"[]"},
        {"text": b"  a ", "tags": b'["x", "y"]'},
    ]
