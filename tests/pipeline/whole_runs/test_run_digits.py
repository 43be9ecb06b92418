"""Digits from their image files to a served label: that every way to ask gives the training graph's answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from serving import reference_predictions
from serving.client.rest import RestClient
from serving.model_store import served_version
from serving.server.app import EmbeddedServer
from serving.server.options import ServerOptions
from tests.pipeline.conftest import Finished, ingraph, strings
from trainers.options import TOLERANCES

TOLERANCE = TOLERANCES["float32"]
LABELS = [str(digit) for digit in range(10)]
# A small backbone for two epochs: what it learns is not the point.
SETTINGS = (
    "trainer.backbone=MobileNet",
    "trainer.blocks=auto",
    "trainer.epochs=2",
    "preprocessing={height: 32, width: 32}",
    "evaluation={at_least: {accuracy: 0.05}}",
    "serving={unknown: {label: unclear, coverage: 0.8}}",
)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("digits")


@pytest.fixture(scope="module")
def finished(workdir) -> Finished:
    settings = [argument for setting in SETTINGS for argument in ("--set", setting)]
    return ingraph("run", "configs/digits.yaml", "--workdir", str(workdir), *settings, fresh=True)


@pytest.fixture(scope="module")
def artifacts(finished, workdir) -> Path:
    assert finished.status == 0, finished.output + finished.errors
    return workdir / "runs/digits/artifacts"


@pytest.fixture(scope="module")
def records(artifacts) -> list[bytes]:
    (examples,) = (artifacts / "ImageExampleGen/examples").iterdir()
    files = sorted(map(str, (examples / "Split-eval").iterdir()))
    return list(tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator())


@pytest.fixture(scope="module")
def files(records) -> list[bytes]:
    """The image files of the whole eval split."""
    return [tf.train.Example.FromString(record).features.feature["image"].bytes_list.value[0] for record in records]


@pytest.fixture(scope="module")
def training_graph(artifacts, records) -> np.ndarray:
    """What the Keras model says after Transform's graph: probabilities in the order of LABELS."""
    (graph,) = (artifacts / "Transform/transform_graph").iterdir()
    (model,) = (artifacts / "Trainer/model").iterdir()
    transform = tft.TFTransformOutput(str(graph))
    assert [label.decode() for label in transform.vocabulary_by_name("labels")] == LABELS
    features = transform.transform_features_layer()(tf.io.parse_example(records, transform.raw_feature_spec()))
    assert set(features["error"].numpy()) == {b""}
    return keras.models.load_model(model / "model.keras").predict(features["image"], verbose=0)


@pytest.fixture(scope="module")
def server(artifacts, workdir) -> Iterator[EmbeddedServer]:
    options = ServerOptions(rest_port=0, grpc_port=0)
    with EmbeddedServer({"digits": str(workdir / "models/digits")}, options) as running:
        yield running


def test_a_newcomer_reads_the_verdicts_the_label_of_a_photo_and_what_to_type_next(finished, workdir):
    assert finished.status == 0, finished.output + finished.errors
    assert "1,797 photos of 10 classes" in finished.output
    assert f"published as version 1: {workdir}/models/digits/1" in finished.output
    answers = [line.rpartition("-> ")[2] for line in finished.output.splitlines() if line.startswith(("REST", "gRPC"))]
    assert len(answers) == 2 and answers[0] == answers[1] and answers[0] in [*LABELS, "unclear"]
    assert "ingraph predict digits" in finished.output


@pytest.fixture(scope="module")
def unknown(artifacts) -> dict[str, Any]:
    """What the provenance says of the label for unknown."""
    (model,) = (artifacts / "Trainer/model").iterdir()
    found: dict[str, Any] = json.loads((model / "provenance.json").read_text())["unknown"]
    return found


@pytest.fixture(scope="module")
def answers(training_graph, unknown) -> list[str]:
    """What serving_default has to answer by these probabilities."""
    alone = (training_graph >= np.float32(unknown["threshold"])).sum(axis=1) == 1
    best = training_graph.argmax(axis=1)
    return [LABELS[number] if one else "unclear" for number, one in zip(best, alone, strict=True)]


def test_the_answers_to_the_whole_eval_split_are_the_training_graphs_unclear_photos_among_them(
    client, files, training_graph, unknown, answers
):
    assert len(files) > 300
    assert 20 < answers.count("unclear") < len(files)
    answered: list[str] = []
    for start in range(0, len(files), 64):
        images: list[Any] = files[start : start + 64]
        if isinstance(client, RestClient):
            images = [base64.urlsafe_b64encode(image).decode() for image in images]
        answered += strings(client.predict("digits", {"image": images})["output_0"])
    close = np.sort(training_graph, axis=1)[:, -1] - np.sort(training_graph, axis=1)[:, -2] < TOLERANCE
    close |= np.abs(training_graph - unknown["threshold"]).min(axis=1) < TOLERANCE
    differing = [row for row in range(len(files)) if answered[row] != answers[row] and not close[row]]
    assert differing == []
    assert close.mean() < 0.2


def test_the_report_says_how_many_photos_are_unclear_of_those_that_did_not_set_the_threshold(
    finished, workdir, records, training_graph, unknown, answers
):
    ids = [reference_predictions.example_id(record) for record in records]
    truth = [tf.train.Example.FromString(one).features.feature["label"].bytes_list.value[0].decode() for one in records]
    measured = [row for row, id_ in enumerate(ids) if int(id_, 16) % 2 == 1]
    assert (unknown["calibrated_on"], unknown["rows"]) == ("half_of_eval", len(records) - len(measured))
    covered = [training_graph[row, int(truth[row])] >= np.float32(unknown["threshold"]) for row in measured]
    (page,) = (workdir / "runs/digits/reports").glob("*.html")
    text = page.read_text()
    for title, share in (
        ("share answered “unclear”", np.mean([answers[row] == "unclear" for row in measured])),
        ("coverage of the label sets", np.mean(covered)),
        ("share of all with a wrong label", np.mean([answers[row] not in (truth[row], "unclear") for row in measured])),
    ):
        shown = text.partition(title)[2].partition("<td>")[2].partition(" ")[0]
        assert float(shown) == pytest.approx(share, abs=3 / len(measured)), title
    assert f"on {len(measured)} examples of the eval split" in text


def test_probabilities_are_the_training_graphs_and_the_references(client, files, records, training_graph, artifacts):
    chosen = slice(0, 40)
    answer = client.predict("digits", {"examples": records[chosen]}, signature="serve_examples")
    np.testing.assert_allclose(np.asarray(answer["probabilities"], np.float32), training_graph[chosen], atol=TOLERANCE)
    (model,) = (artifacts / "Trainer/model").iterdir()
    references = reference_predictions.read(str(model / reference_predictions.FILE_NAME))
    row_of = {id_: row for row, id_ in enumerate(references.ids)}
    rows = [row_of[reference_predictions.example_id(record)] for record in records]
    np.testing.assert_allclose(references.probabilities[rows], training_graph, atol=TOLERANCE)


def test_bad_photos_get_a_reason_and_the_good_ones_in_their_batch_their_labels(client, files, training_graph):
    bad = {b"": "image is empty", b"no photo": "not a JPEG, PNG, GIF or BMP image", files[0][:60]: "image is damaged"}
    images = [*files[:4], *bad, *files[4:8]]
    answer = client.predict("digits", {"image_bytes": images}, signature="classify")
    assert strings(answer["error"]) == [""] * 4 + list(bad.values()) + [""] * 4
    best = strings(np.asarray(answer["labels"])[:, 0])
    expected = [LABELS[row] for row in training_graph[:8].argmax(axis=1)]
    assert best == expected[:4] + [""] * 3 + expected[4:]


def test_the_published_version_says_what_it_was_made_from_and_is_warm_after_few_requests(artifacts, workdir):
    version = served_version(str(workdir / "models/digits"))
    assert version is not None
    assert version.provenance["examples_left_out"] == 0
    warmup = Path(version.path) / "assets.extra/tf_serving_warmup_requests"
    assert 0 < warmup.stat().st_size < 1_000_000
    # A training that came to its end leaves nothing for another to go on from.
    assert list((artifacts / "Trainer/unfinished").iterdir()) == []


def test_the_next_run_repeats_nothing_and_publishes_nothing_twice(finished, workdir):
    settings = [argument for setting in SETTINGS for argument in ("--set", setting)]
    again = ingraph("run", "configs/digits.yaml", "--workdir", str(workdir), *settings, fresh=True)
    assert again.status == 0, again.output
    state = {line.split()[0]: line.split()[1] for line in again.output.splitlines() if line.startswith("  ")}
    assert state["ImageExampleGen"] == state["Transform"] == state["Trainer"] == "unchanged"
    assert "already published as version 1" in again.output


def test_the_statistics_hold_no_photo(artifacts):
    for file in (artifacts / "StatisticsGen").rglob("*.pb"):
        assert b"PNG" not in file.read_bytes()
    (verdict,) = (artifacts / "DataGate").rglob("verdict.json")
    assert sum(json.loads(verdict.read_text())["examples"].values()) == 1797
