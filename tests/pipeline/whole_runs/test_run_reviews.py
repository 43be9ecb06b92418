"""Film reviews from their CSV file to a served label: that every way to ask gives the training graph's answer."""

from __future__ import annotations

import gzip
import json
import random
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from pipeline.exit_status import ExitStatus
from serving.client.grpc import GrpcClient
from serving.client.rest import RestClient
from serving.model_store import list_versions
from serving.server.app import EmbeddedServer
from serving.server.options import ServerOptions
from tests.pipeline.conftest import Finished, ingraph, page_of, strings, table
from trainers.splits import dense_batch
from trainers.text.models import ragged_terms

LABELS = ["fresh", "rotten"]
EMOTIONS = {
    "joy": ["嬉しい", "楽しい"],
    "anger": ["怒る", "許せない"],
    "fear": ["怖い", "恐ろしい"],
    "sadness": ["悲しい", "寂しい"],
    "love": ["愛してる", "好き"],
    "surprise": ["驚いた", "びっくり"],
}
ODD_TEXTS = [
    "",
    "   ",
    "\x00\x01\x7f",
    "👍🏽 👎",
    "مرحبا بالعالم שלום עולם",
    "映画はとても面白い",
    "<br/>" * 1000,
    "&" * 1000,
    "e\u0301" * 1000,
    "a fine film " * 90_000,  # more than 1 MB
    "x" * 2**20,
]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("reviews")


@pytest.fixture(scope="module")
def finished(workdir) -> Finished:
    """`ingraph run configs/reviews.yaml`, once for all tests."""
    done = ingraph("run", "configs/reviews.yaml", "--workdir", str(workdir))
    assert done.status == 0, done.output + done.errors
    return done


@pytest.fixture(scope="module")
def eval_examples(finished, workdir) -> list[tf.train.Example]:
    (files,) = (workdir / "runs/reviews/artifacts/TableExampleGen/examples").glob("*/Split-eval")
    records = tf.data.TFRecordDataset([str(file) for file in files.iterdir()], "GZIP").as_numpy_iterator()
    return [tf.train.Example.FromString(record) for record in records]


@pytest.fixture(scope="module")
def texts(eval_examples) -> list[str]:
    return [example.features.feature["text"].bytes_list.value[0].decode() for example in eval_examples]


@pytest.fixture(scope="module")
def serialized(texts) -> list[bytes]:
    return [example(text.encode()) for text in texts]


def example(text: bytes) -> bytes:
    result = tf.train.Example()
    result.features.feature["text"].bytes_list.value.append(text)
    return result.SerializeToString()


@pytest.fixture(scope="module")
def training_graph(finished, workdir, serialized) -> np.ndarray:
    """What the Keras model says after Transform's graph: probabilities in the order of LABELS."""
    (graph,) = (workdir / "runs/reviews/artifacts/Transform/transform_graph").iterdir()
    (model,) = (workdir / "runs/reviews/artifacts/Trainer/model").iterdir()
    transform = tft.TFTransformOutput(str(graph))
    assert [label.decode() for label in transform.vocabulary_by_name("labels")] == LABELS
    spec = {name: feature for name, feature in transform.raw_feature_spec().items() if name != "label"}
    features = transform.transform_features_layer()(tf.io.parse_example(serialized, spec))
    return keras.models.load_model(model / "model.keras").predict(dense_batch(ragged_terms(features)), verbose=0)


@pytest.fixture(scope="module")
def server(finished, workdir) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(
        {"reviews": str(workdir / "models/reviews")}, ServerOptions(rest_port=0, grpc_port=0)
    ) as running:
        yield running


def test_a_newcomer_reads_the_verdicts_and_the_labels(finished, workdir):
    assert f"published as version 1: {workdir}/models/reviews/1" in finished.output
    answers = [line.rpartition("-> ")[2] for line in finished.output.splitlines() if line.startswith(("REST", "gRPC"))]
    assert len(answers) == 2 and answers[0] == answers[1] and answers[0] in LABELS


def test_the_report_shows_the_loss_of_the_first_best_and_last_epoch(finished, workdir):
    (file,) = (workdir / "runs/reviews/artifacts/Trainer/model").glob("*/learning_curves.json")
    losses = json.loads(file.read_text())["loss"]
    (report,) = (workdir / "runs/reviews/reports").glob("*.html")
    shown = table(page_of(report), "First, best and last loss")["training rows"]
    assert shown == [f"{loss:.4f}" for loss in (losses[0], min(losses), losses[-1])] + [str(len(losses))]


def test_the_label_of_serving_default_is_the_training_graphs(client, texts, training_graph):
    answer = client.predict("reviews", {"text": texts})
    assert list(answer) == ["output_0"]
    assert strings(answer["output_0"]) == [LABELS[best] for best in training_graph.argmax(axis=1)]


def test_classify_gives_the_training_graphs_labels_and_probabilities_best_first(client, texts, training_graph):
    answer = client.predict("reviews", {"text": texts}, signature="classify")
    order = np.argsort(-training_graph, axis=1, kind="stable")
    np.testing.assert_array_equal(np.array(strings(answer["labels"])).reshape(-1, 2), np.array(LABELS)[order])
    expected = np.take_along_axis(training_graph, order, axis=1)
    np.testing.assert_allclose(np.asarray(answer["probabilities"], np.float32), expected, atol=1e-6)
    assert set(strings(answer["error"])) == {""}


def test_serve_examples_gives_the_training_graphs_probabilities(client, serialized, training_graph):
    answer = client.predict("reviews", {"examples": serialized}, signature="serve_examples")
    np.testing.assert_allclose(np.asarray(answer["probabilities"], np.float32), training_graph, atol=1e-6)


def test_the_model_is_as_good_as_the_linear_baseline(eval_examples, training_graph):
    truth = [example.features.feature["label"].bytes_list.value[0].decode() for example in eval_examples]
    predicted = [LABELS[best] for best in training_graph.argmax(axis=1)]
    assert np.mean([a == b for a, b in zip(truth, predicted, strict=True)]) > 0.76


def test_a_stock_rest_client_reads_the_label_at_outputs_0(server, texts, training_graph):
    body = json.dumps({"inputs": {"text": [texts[0]]}}).encode()
    address = f"http://{server.host}:{server.rest_port}/v1/models/reviews:predict"
    with urllib.request.urlopen(urllib.request.Request(address, body)) as answer:
        assert json.load(answer)["outputs"][0] == LABELS[training_graph[0].argmax()]


def test_a_stock_grpc_client_reads_the_label_at_string_val_0(server, texts, training_graph):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "reviews"
    request.inputs["text"].CopyFrom(tf.make_tensor_proto([texts[0]]))
    with grpc.insecure_channel(f"{server.host}:{server.grpc_port}") as channel:
        answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=60)
    assert answer.outputs["output_0"].string_val[0].decode() == LABELS[training_graph[0].argmax()]


def test_odd_texts_have_finite_answers_and_leave_the_rest_of_the_batch_alone(client, texts, training_graph):
    for odd in ODD_TEXTS:
        answer = client.predict("reviews", {"text": [texts[0], odd, texts[1]]}, signature="classify")
        probabilities = np.asarray(answer["probabilities"], np.float32)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(probabilities[[0, 2]].max(axis=1), training_graph[:2].max(axis=1), atol=1e-6)
        assert set(strings(answer["labels"])) == set(LABELS)


def test_bytes_that_are_no_text_have_the_answer_of_the_text_around_them(server):
    broken, whole = [b"a fine\xff\xfe film\xe3", b"\xff"], [b"a fine film", b""]
    with GrpcClient(port=server.grpc_port) as client:
        answers = [client.predict("reviews", {"text": asked}, signature="classify") for asked in (broken, whole)]
    np.testing.assert_array_equal(answers[0]["probabilities"], answers[1]["probabilities"])
    assert np.isfinite(answers[0]["probabilities"]).all()


def test_every_text_without_a_known_word_has_the_same_undecided_answer(client):
    answer = client.predict("reviews", {"text": ["", "映画", "qqqq zzzz"]}, signature="classify")
    probabilities = np.asarray(answer["probabilities"], np.float32)
    np.testing.assert_allclose(probabilities, 0.5, atol=0.1)
    assert (probabilities == probabilities[0]).all()


def test_ones_own_sentences_of_six_classes_need_only_a_config_and_stay_withdrawn_once_they_are(tmp_path):
    rows = emotions()
    with gzip.open(tmp_path / "feelings.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "feelings.yaml").write_text(
        "name: feelings\n"
        "task: text\n"
        "data: {path: feelings.jsonl.gz}\n"
        "preprocessing: {label: {column: emotion}, column: sentence, word_ngrams: 0, character_ngrams: [1, 2]}\n"
        "evaluation: {at_least: {accuracy: 0.95, auc: 0.95}}\n"
        "trainer: {epochs: 20, learning_rate: 0.01}\n"
    )
    done = ingraph("run", str(tmp_path / "feelings.yaml"), "--workdir", str(tmp_path))
    assert done.status == 0, done.output
    assert f"data: {len(rows)} rows, 1 repeat an earlier one, 'sentence' is empty in 1" in done.output
    assert sorted(texts_read(tmp_path)) == sorted(row["sentence"] for row in rows)
    with (
        EmbeddedServer(
            {"feelings": str(tmp_path / "models/feelings")}, ServerOptions(rest_port=0, grpc_port=0)
        ) as server,
        RestClient(port=server.rest_port) as client,
    ):
        asked = [words[0] for words in EMOTIONS.values()]
        assert strings(client.predict("feelings", {"text": asked})["output_0"]) == list(EMOTIONS)

    base_path = tmp_path / "models/feelings"
    assert ingraph("models", "withdraw", str(base_path), "--reason", "too gloomy").status == 0
    fresh = ["--workdir", str(tmp_path / "fresh"), "--set", f"models={tmp_path}/models"]
    again = ingraph("run", str(tmp_path / "feelings.yaml"), *fresh)
    assert again.status == ExitStatus.NOT_PUBLISHED, again.output
    said = " ".join(again.output.split())
    assert f"this model was withdrawn from {base_path} as version 1 (too gloomy)" in said
    assert [(version.number, version.withdrawn) for version in list_versions(str(base_path))] == [(1, True)]


def emotions() -> list[dict[str, str]]:
    """Sentences without spaces, with tabs, quotes and line breaks; two are the same, one is empty."""
    source = random.Random(0)
    rows = []
    for number in range(720):
        emotion = source.choice(list(EMOTIONS))
        said = source.choice(EMOTIONS[emotion])
        rows.append({"sentence": f'第{number}\n「{said}」\r\n,"\t日だ\u2028', "emotion": emotion})
    return [*rows, rows[0], {"sentence": "", "emotion": "joy"}]


def texts_read(workdir: Path) -> list[str]:
    """The texts among the examples of a run, "" where one has none."""
    (artifact,) = (workdir / "runs/feelings/artifacts/TableExampleGen/examples").iterdir()
    files = [str(file) for file in artifact.glob("Split-*/*")]
    records = tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator()
    values = [tf.train.Example.FromString(record).features.feature["sentence"].bytes_list.value for record in records]
    return [value[0].decode() if value else "" for value in values]
