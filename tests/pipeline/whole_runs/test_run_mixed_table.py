"""A table with dates, sentences, truth values, lists and numbers, from `ingraph init` to served labels."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from components.run_report import evaluation
from components.run_report.pages import report_page
from components.table_example_gen.facts import shard_facts
from components.table_example_gen.serialization import serialized_examples
from components.table_example_gen.sources import plan_inputs, shard_batches
from pipeline import reports
from pipeline.config import load_config
from serving.client.grpc import GrpcClient
from serving.missing_values import MISSING_FLOAT, MISSING_INTEGER
from serving.server.app import EmbeddedServer
from serving.server.options import ServerOptions
from tests.pipeline.conftest import Finished, ingraph, strings

ROWS = 500
TEST_SHARE = ("--set", "data.test_share=0.15")


def customers() -> pd.DataFrame:
    """Who leaves: those who joined late, complain, and have the tag `late`."""
    chance = np.random.default_rng(0)
    day, late = chance.integers(0, 700, ROWS), chance.random(ROWS) < 0.4
    complains = chance.random(ROWS) < 0.3
    leaves = (day / 350 + 2 * late + 2 * complains + chance.normal(0, 0.7, ROWS)) > 2.5
    said = {True: "the bill of {} is wrong and nobody answers me", False: "I paid {} and am glad to be with you"}
    frame = pd.DataFrame(
        {
            "id": [f"C{number:06d}" for number in range(ROWS)],
            "joined": pd.to_datetime("2024-01-31 22:30:00") + pd.to_timedelta(day * 25, unit="h"),
            "said": [said[bool(bad)].format(number) for number, bad in enumerate(complains)],
            "active": chance.random(ROWS) < 0.5,
            "tags": [
                sorted({"new", *(["late"] if is_late else []), f"tag{number % 3}"})
                for number, is_late in enumerate(late)
            ],
            "Income (k€)": chance.lognormal(3, 2.5, ROWS),
            "visits": chance.poisson(40, ROWS),
            "class": chance.integers(1, 5, ROWS),
            "outcome": np.where(leaves, "leaves", "stays"),
        }
    )
    frame.loc[::50, "joined"] = pd.NaT
    frame.loc[::40, "Income (k€)"] = np.nan
    frame.loc[::30, "said"] = None
    return frame


@dataclass(frozen=True)
class MixedRun:
    """A finished run on the table, and what was said before it."""

    folder: Path
    started: Finished
    finished: Finished

    @property
    def base_path(self) -> Path:
        return self.folder / "models/customers"


@pytest.fixture(scope="module")
def mixed_run(tmp_path_factory: pytest.TempPathFactory) -> MixedRun:
    folder = tmp_path_factory.mktemp("mixed")
    table, config = folder / "customers.parquet", str(folder / "customers.yaml")
    customers().to_parquet(table, index=False)
    started = ingraph("init", str(table), "--label", "outcome", "--config", config)
    assert started.status == 0, started.errors
    finished = ingraph("run", config, "--workdir", str(folder), *TEST_SHARE, "--set", "trainer.model=network")
    assert finished.status == 0, finished.output + finished.errors
    return MixedRun(folder, started, finished)


def typed_batch(run: MixedRun) -> pa.RecordBatch:
    """All rows, as the examples hold them."""
    ingestion = load_config(str(run.folder / "customers.yaml")).ingestion()
    (shard,) = plan_inputs({"all": str(run.folder / "customers.parquet")}, ingestion)
    (batch,) = shard_batches(shard, ingestion.reading, shard_facts(shard, ingestion).types)
    return batch


@pytest.fixture(scope="module")
def training_labels(mixed_run: MixedRun) -> list[str]:
    """What the Keras model says after Transform's graph, of each row."""
    artifacts = mixed_run.folder / "runs/customers/artifacts"
    (graph,), (model,) = (artifacts / "Transform/transform_graph").iterdir(), (artifacts / "Trainer/model").iterdir()
    transform = tft.TFTransformOutput(str(graph))
    labels = [label.decode() for label in transform.vocabulary_by_name("labels")]
    spec = {name: feature for name, feature in transform.raw_feature_spec().items() if name != "outcome"}
    examples = serialized_examples(typed_batch(mixed_run)).to_pylist()
    features = transform.transform_features_layer()(tf.io.parse_example(examples, spec))
    predicted = keras.models.load_model(model / "model.keras").predict(dict(features), verbose=0)
    return [labels[best] for best in predicted.argmax(axis=1)]


@pytest.fixture(scope="module")
def json_rows(mixed_run: MixedRun) -> list[dict[str, Any]]:
    """The rows as a client sends them: every column but the label and the identifier that nothing is learned from."""
    missing = {"joined": "", "said": "", "Income (k€)": MISSING_FLOAT, "visits": MISSING_INTEGER}
    table = typed_batch(mixed_run).drop_columns(["outcome", "id"])
    rows = table.to_pylist()
    return [{name: as_json(missing[name] if value is None else value) for name, value in row.items()} for row in rows]


def as_json(value: Any) -> Any:
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value


@pytest.fixture(scope="module")
def server(mixed_run: MixedRun) -> Iterator[EmbeddedServer]:
    with EmbeddedServer({"customers": str(mixed_run.base_path)}, ServerOptions(rest_port=0, grpc_port=0)) as running:
        yield running


def test_a_newcomer_is_told_what_the_columns_are_taken_for(mixed_run: MixedRun):
    config = (mixed_run.folder / "customers.yaml").read_text()
    assert (
        "id: ignored, joined: datetime, said: text, active: boolean, tags: list, Income (k€): log, class: categorical"
        in config
    )
    assert "data: 500 rows" in mixed_run.finished.output


def test_a_row_of_json_over_rest_gets_the_training_graphs_label(server, json_rows, training_labels):
    assert len(set(training_labels)) == 2
    served = []
    for row in json_rows:
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.rest_port}/v1/models/customers:predict",
            json.dumps({"instances": [row]}).encode(),
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            served += json.load(answer)["predictions"]
    assert served == training_labels


def test_a_row_over_grpc_gets_the_training_graphs_label(server, json_rows, training_labels):
    with GrpcClient(port=server.grpc_port) as client:
        answers = [client.predict("customers", {name: [value] for name, value in row.items()}) for row in json_rows]
    assert [strings(answer["output_0"])[0] for answer in answers] == training_labels


def test_a_column_that_is_left_out_is_no_input(server, json_rows):
    with GrpcClient(port=server.grpc_port) as client:
        signatures = client.metadata("customers").signatures
    for name in ("serving_default", "classify"):
        assert set(signatures[name].inputs) == set(json_rows[0]) == set(customers().columns) - {"id", "outcome"}


def test_the_report_tells_how_the_model_does_on_the_test_split(mixed_run: MixedRun, training_labels):
    (examples,) = (mixed_run.folder / "runs/customers/artifacts/TableExampleGen/examples").iterdir()
    files = [str(path) for path in (examples / "Split-test").iterdir()]
    features = [
        tf.train.Example.FromString(record).features.feature
        for record in tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator()
    ]
    rows = [int(feature["id"].bytes_list.value[0][1:]) for feature in features]
    assert 50 < len(rows) < 110
    right = np.mean([training_labels[row] == customers()["outcome"][row] for row in rows])
    (report,) = (mixed_run.folder / "runs/customers/reports").glob("*.html")
    section = report.read_text().partition("<h3>Test split</h3>")[2].partition("<h3>")[0]
    assert f"on the {len(rows)} examples of the test split" in section
    assert f'<th scope="row">accuracy</th><td>{right:.4f} (' in section


def test_of_a_large_test_split_a_part_is_drawn_and_the_report_says_of_how_many(mixed_run: MixedRun, monkeypatch):
    folder = mixed_run.folder / "runs/customers"
    (page,) = (folder / "reports").glob("*.html")
    run = reports.read_finished_run(folder, page.stem)
    whole = evaluation.read_test_predictions(run, ROWS)
    monkeypatch.setattr(evaluation, "MOST_EXAMPLES", 30)
    drawn = evaluation.read_test_predictions(run, len(whole.ids))
    assert set(drawn.ids) == set(sorted(whole.ids)[:30]) and drawn.drawn_of == len(whole.ids)
    of_all = dict(zip(whole.ids, whole.probabilities.tolist(), strict=True))
    assert drawn.probabilities == pytest.approx(np.array([of_all[one] for one in drawn.ids]), abs=1e-6)
    assert f"30 of the {len(whole.ids)} examples of the test split, drawn by chance" in report_page(run)


def test_the_labels_are_learned(training_labels):
    assert np.mean(np.array(training_labels) == customers()["outcome"]) > 0.8
