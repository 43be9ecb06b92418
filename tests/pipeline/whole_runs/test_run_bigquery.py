"""Configs whose rows are in BigQuery: checked before a run, compiled for a cluster, and run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest
import yaml
from tfx.orchestration.pipeline import Pipeline
from tfx.types.artifact_utils import decode_split_names

from components.errors import BrokenInput
from components.table_example_gen.executor import REPORT_FILE
from components.table_example_gen.serialization import NUMBER, TEXT
from pipeline import demo_data
from pipeline.config import load_config
from pipeline.data import fullest_row, table_inputs
from pipeline.options import ClusterOptions, TableRunConfig
from pipeline.runners.compile import cluster_pipeline, compile_job, write_job
from pipeline.runners.rehearsal import rehearse_spec
from pipeline.tasks import TASKS, raw_data
from serving.model_store import list_versions
from tests.components.table_example_gen.bigquery_server import Answer, BigQueryServer, StoredTable, serve_bigquery
from tests.pipeline.conftest import PROJECT, ingraph

TABLE = "shop.sales.visits"
CONFIG = {
    "name": "visits",
    "task": "tabular",
    "data": {"bigquery": {"table": TABLE}},
    "preprocessing": {"label": {"column": "bought"}, "columns": {"sum": "z_score"}},
    "evaluation": {"at_least": {"accuracy": 0.5}},
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BigQueryServer]:
    with serve_bigquery() as started:
        for name, address in started.environment.items():
            monkeypatch.setenv(name, address)
        yield started


def config_of(folder: Path, *settings: str, task: str = "tabular") -> TableRunConfig:
    file = folder / "config.yaml"
    content = {**CONFIG, "task": task}
    if task == "text":
        content["preprocessing"] = {"column": "sum", "label": {"column": "bought"}}
    file.write_text(yaml.safe_dump(content))
    config = load_config(str(file), settings)
    assert isinstance(config, TableRunConfig)
    return config


def rows(**columns: pa.Array) -> pa.Table:
    return pa.table({"sum": [1.5, 2.5, None], "bought": ["yes", "no", "yes"], **columns})


def test_rows_are_counted_before_a_run_and_what_is_left_out_is_said(server, tmp_path):
    server.tables[TABLE] = StoredTable(rows(place=[{"x": 1}, {"x": 2}, None]))
    data = raw_data(config_of(tmp_path))
    assert data.findings == "3 rows, 'sum' is empty in 1"
    assert data.path == f"bigquery:{TABLE}"
    assert data.warnings == ["the column 'place' holds struct<x: int64>, which no example can hold, and is left out"]
    server.tables[TABLE].modified += 1
    assert raw_data(config_of(tmp_path)).fingerprint != data.fingerprint


def test_texts_come_from_bigquery_too(server, tmp_path):
    table = pa.table({"sum": ["good", "Good!", " "], "bought": ["yes", "yes", "no"]})
    server.tables[TABLE] = StoredTable(table)
    config = config_of(tmp_path, task="text")
    assert raw_data(config).findings == (
        "3 rows, 'sum' is empty in 1; terms: words and characters, for a text has 1.0 words in the mean "
        "(preprocessing.word_ngrams and character_ngrams decide otherwise)"
    )


def test_a_row_is_taken_as_people_write_it(server, tmp_path):
    server.tables[TABLE] = StoredTable(rows(tags=pa.array([["a"]] * 3)).slice(0, 1))
    config = config_of(tmp_path)
    found = fullest_row(table_inputs(config, f"bigquery:{TABLE}"), config.ingestion())
    assert found == {"sum": "1.5", "bought": "yes", "tags": "a"}


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (
            rows().rename_columns(["sum", "b"]),
            r"no column 'bought', which preprocessing\.label\.column.* are 'sum', 'b'$",
        ),
        (
            rows().set_column(0, "sum", pa.array(["1", "2", "x"])),
            rf"^bigquery:{TABLE}: column 'sum' holds text, expected numbers",
        ),
        (rows().slice(0, 0), "there are no rows in it"),
    ],
)
def test_rows_that_do_not_fit_the_config_are_a_sentence(server, tmp_path, table, sentence):
    server.tables[TABLE] = StoredTable(table)
    with pytest.raises(BrokenInput, match=sentence):
        raw_data(config_of(tmp_path))


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("data.path=a.csv", "give either path .* or bigquery for rows"),
        ("data.delimiter=;", "data: delimiter: of files alone; rows of BigQuery have their types"),
        ("data.bigquery.table=visits", r"data\.bigquery: expected table as project\.dataset\.table, received 'visits'"),
        ("data.bigquery.tabel=x", r"unknown key 'data\.bigquery\.tabel'; did you mean 'table'\?"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(tmp_path, setting, sentence):
    with pytest.raises(BrokenInput, match=sentence):
        config_of(tmp_path, setting)


CLUSTER = ["cluster.image=registry/ingraph:1", "cluster.pipeline_root=gs://bucket/ingraph"]
QUERY = "SELECT sum, bought FROM `shop.sales.visits` WHERE sum < 9"


def test_on_a_cluster_rows_are_read_anew_in_each_run(tmp_path):
    """Nothing is asked here: there is no server."""
    query = f"data.bigquery={{query: '{QUERY}', project: payer}}"
    compiled = cluster_pipeline(config_of(tmp_path, query, *CLUSTER), "kubeflow", tmp_path)
    assert compiled.staged == []
    task = compiled.job["pipelineSpec"]["root"]["dag"]["tasks"]["BigQueryExampleGen"]
    parameters = task["inputs"]["parameters"]
    assert parameters["input_fingerprint"] == {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}
    assert "cachingOptions" not in task
    assert parameters["source"] == {"componentInputParameter": "data"}
    source = compiled.job["pipelineSpec"]["root"]["inputDefinitions"]["parameters"]["data"]["defaultValue"]
    assert source.startswith("bigquery:payer#SELECT%20sum%2C%20bought%20FROM%20%60shop.sales.visits%60")


def test_the_step_of_a_compiled_spec_runs_the_query(server, tmp_path):
    server.tables[TABLE] = StoredTable(rows())
    server.answers[QUERY] = Answer(lambda: rows().slice(0, 2), (TABLE,))
    config = config_of(tmp_path, f"data.bigquery={{query: '{QUERY}', project: payer}}")
    assert config.data.bigquery
    step = TASKS["tabular"].example_gen(config, config.data.bigquery.path(), "run")
    beam = config.beam.pipeline_args()
    pipeline = Pipeline("visits", str(tmp_path / "root"), components=[step], beam_pipeline_args=beam)
    write_job(compile_job(pipeline, ClusterOptions(image="registry/ingraph:1")), str(tmp_path / "spec.json"))
    outputs = rehearse_spec(str(tmp_path / "spec.json"), tmp_path / "out")
    (examples,) = outputs["BigQueryExampleGen"].artifacts["examples"].artifacts
    report = json.loads(Path(examples.uri, REPORT_FILE).read_text())
    assert sum(report["examples"].values()) == 2
    assert report["columns"] == {"sum": str(NUMBER), "bought": str(TEXT)}
    assert decode_split_names(examples.metadata["split_names"]) == ["train", "eval"]
    assert server.ran == [QUERY]


def test_a_run_learns_from_bigquery_and_says_where_the_table_is_gone(server, tmp_path):
    """The demo data as a table; the server is found by its environment, as an emulator is."""
    hearts = pyarrow.csv.read_csv(demo_data.fetch("hearts"), convert_options=pa.csv.ConvertOptions(null_values=[""]))
    server.tables["clinic.heart.patients"] = StoredTable(hearts)
    command = ["run", f"{PROJECT}/configs/heart.yaml", "--workdir", str(tmp_path), "--set", "data.dataset=null"]
    command += ["--set", "data.bigquery={table: clinic.heart.patients}"]

    first = ingraph(*command)
    assert first.status == 0, first.output + first.errors
    assert "303 rows" in first.output
    assert [version.number for version in list_versions(str(tmp_path / "models/heart"))] == [1]

    server.tables.clear()
    gone = ingraph(*command)
    assert gone.status == 2
    assert "data.bigquery.table is clinic.heart.patients: BigQuery does not find it" in " ".join(gone.output.split())
