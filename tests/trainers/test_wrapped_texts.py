"""Classifiers of texts that exist: wrapped, served over REST and gRPC, and compared with float64 numpy."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from components.errors import BrokenInput
from pipeline.config import load_config
from serving.client.grpc import GrpcClient
from serving.client.rest import RestClient
from serving.server.app import EmbeddedServer
from serving.server.options import ServerOptions
from serving.session_model import SessionModel
from tests.trainers.test_text_encoders import (
    HEADS,
    LAYERS,
    POSITIONS,
    WIDTH,
    numpy_states,
    random_weights,
    write_encoder,
)
from tests.trainers.test_text_models import exported, record
from trainers.text.encoders import PIECES
from trainers.text.wrap import WrappedText
from transform.wordpiece import WordPieceTokenizer, read_wordpiece

LABELS = ["sad", "glad", "mad"]
TEXTS = ["the fine film", "dull", "", "日本語! unaffable", "a b c d e f g h i j k l m n o p q r s t u v w x y z"]
OF_DISTILBERT = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}
BERT = {"architectures": ["BertForSequenceClassification"], "id2label": dict(enumerate(LABELS))}
DISTILBERT = {
    "architectures": ["DistilBertForSequenceClassification"],
    "id2label": dict(enumerate(LABELS)),
    "model_type": "distilbert",
    "n_layers": LAYERS,
    "dim": WIDTH,
    "n_heads": HEADS,
    "hidden_dim": 32,
    "activation": "gelu",
}


def head(name: str) -> dict[str, np.ndarray]:
    source = np.random.default_rng(1)
    shapes = {f"{name}.weight": [WIDTH, WIDTH], f"{name}.bias": [WIDTH], "classifier.weight": [3, WIDTH]}
    return {key: source.normal(0, 0.4, shape) for key, shape in (shapes | {"classifier.bias": [3]}).items()}


def distilled(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights by DistilBERT's names, which has no types of tokens."""
    renamed = {}
    for name, array in weights.items():
        if name == "embeddings.token_type_embeddings.weight":
            continue
        layer, _, part = name.removeprefix("encoder.layer.").partition(".")
        if name.startswith("encoder."):
            module, _, kind = part.rpartition(".")
            name = f"transformer.layer.{layer}.{OF_DISTILBERT[module]}.{kind}"
        renamed[f"distilbert.{name}"] = array
    return renamed


def written(folder: Path, kind: str) -> tuple[str, dict[str, np.ndarray]]:
    """A folder with a classifier, and what `expected` takes."""
    encoder = random_weights()
    if kind == "bert":
        over = head("pooler.dense")
        prefixed = {f"bert.{name}" if name.startswith("pooler") else name: array for name, array in over.items()}
        return write_encoder(folder, random_weights("bert.") | prefixed, **BERT), encoder | over
    encoder["embeddings.token_type_embeddings.weight"] = np.zeros([2, WIDTH], np.float32)
    over = head("pre_classifier")
    return write_encoder(folder, distilled(encoder) | over, **DISTILBERT), encoder | over


def expected(folder: str, weights: dict[str, np.ndarray], texts: list[str]) -> np.ndarray:
    """float64 [n, classes], from the names of the weights and the documented heads alone."""
    tokenizer = WordPieceTokenizer(read_wordpiece(folder))
    rows = []
    for ids in tokenizer(tf.constant(texts), POSITIONS).to_list():
        (first, *_) = numpy_states(weights, ids)
        name = "pooler.dense" if "pooler.dense.weight" in weights else "pre_classifier"
        hidden = weights[f"{name}.weight"].astype(np.float32).astype(np.float64) @ first + weights[f"{name}.bias"]
        hidden = np.tanh(hidden) if name == "pooler.dense" else np.maximum(hidden, 0)
        logits = weights["classifier.weight"] @ hidden + weights["classifier.bias"]
        powers = [math.exp(logit - logits.max()) for logit in logits]
        rows.append(np.array(powers) / sum(powers))
    return np.array(rows)


def config_of(folder: Path, **trainer: object):
    path = folder / "config.yaml"
    content = {
        "name": "moods",
        "task": "text",
        "data": {"path": "texts.csv"},
        "preprocessing": {"label": {"column": "label"}},
        "trainer": {"mode": "wrap", "model": "classifier", **trainer},
    }
    path.write_text(json.dumps(content))
    return load_config(str(path))


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_the_network_of_a_wrapped_classifier_answers_as_numpy_does(kind, tmp_path):
    place, weights = written(tmp_path / "classifier", kind)
    config = config_of(tmp_path)
    wrapped = WrappedText(config.trainer)
    pieces = wrapped.pieces(tf.constant(TEXTS), wrapped.maximum_length).to_tensor()
    found = wrapped.classifier()({PIECES: pieces}).numpy()
    np.testing.assert_allclose(found, expected(place, weights, TEXTS), atol=1e-5)


def test_a_wrapped_classifier_is_served_over_rest_and_grpc_as_numpy_computes_it(tmp_path):
    place, weights = written(tmp_path / "classifier", "bert")
    config = config_of(tmp_path)
    assert not config.learns and config.serving_check.tolerance == 1e-5
    records = str(tmp_path / "examples.gz")
    with tf.io.TFRecordWriter(records, "GZIP") as writer:
        for number in range(12):
            writer.write(record(TEXTS[number % 5].encode(), LABELS[number % 3]))
    saved_model = exported(tmp_path, records, config.trainer.model_dump(), text_options=config.preprocessing)
    probabilities = expected(place, weights, TEXTS)
    session = SessionModel(saved_model)
    serialized = np.array([record(text.encode()) for text in TEXTS], object)
    served = session.run("serve_examples", {"examples": serialized})["probabilities"]
    session.close()
    np.testing.assert_allclose(served, probabilities, atol=1e-5)
    best = [LABELS[number] for number in probabilities.argmax(axis=1)]
    ranked = np.sort(probabilities, axis=1)[:, ::-1]
    shutil.copytree(saved_model, tmp_path / "moods/1")
    with (
        EmbeddedServer({"moods": str(tmp_path / "moods")}, ServerOptions(rest_port=0, grpc_port=0)) as server,
        RestClient(port=server.rest_port) as rest,
        GrpcClient(port=server.grpc_port) as grpc,
    ):
        asked = {"text": np.array([text.encode() for text in TEXTS], object)}
        for answers in (
            rest.predict("moods", {"text": TEXTS}, signature="classify"),
            grpc.predict("moods", asked, signature="classify"),
        ):
            found = [label if isinstance(label, str) else label.decode() for label, *_ in answers["labels"]]
            assert found == best
            np.testing.assert_allclose(np.asarray(answers["probabilities"], float), ranked, atol=1e-5)


REFUSED = [
    ({"architectures": ["BertForTokenClassification"]}, {}, {}, "is of BertForTokenClassification; expected BertFor"),
    ({"problem_type": "multi_label_classification"}, {}, {}, "expected one label for each text"),
    ({"id2label": {"0": "sad"}}, {}, {}, "names 1 labels in id2label, and the classifier has 3 outputs"),
    ({"id2label": {"0": "a", "1": "a", "2": "b"}}, {}, {}, "the labels a, a, b name a class twice"),
    ({}, {"classifier.weight": None}, {}, "has no weight classifier.weight; expected a classifier"),
    ({}, {"bert.pooler.dense.bias": None}, {}, "has no weight pooler.dense.bias"),
    ({}, {}, {"labels": ["a", "b"]}, "answers with 3 classes, and trainer.labels lists 2"),
    ({}, {}, {"maximum_length": 25}, "trainer.maximum_length is 25, and .* takes texts of at most 24 pieces"),
    ({"model_type": "roberta"}, {}, {}, "is of a model 'roberta'"),
    ({"hidden_size": 32}, {}, {}, r"expected \[.*\] by config.json"),
    ({}, {}, {"model": "elsewhere"}, "cannot be read as JSON; expected a folder in Hugging Face's layout"),
    ({}, {}, {"model": None}, "mode: wrap takes the folder of a classifier of texts"),
    ({}, {}, {"epochs": 3}, "epochs"),
]


@pytest.mark.parametrize(("config", "weights", "trainer", "sentence"), REFUSED)
def test_what_cannot_be_carried_over_is_refused_before_anything_runs(config, weights, trainer, sentence, tmp_path):
    over = {f"bert.{name}".replace("bert.classifier", "classifier"): one for name, one in head("pooler.dense").items()}
    arrays = {name: array for name, array in (random_weights("bert.") | over | weights).items() if array is not None}
    write_encoder(tmp_path / "classifier", arrays, **(BERT | config))
    with pytest.raises(BrokenInput, match=sentence):
        config_of(tmp_path, **trainer)


def test_labels_of_the_config_stand_for_those_of_the_folder(tmp_path):
    written(tmp_path / "classifier", "bert")
    assert config_of(tmp_path).preprocessing.label.order == tuple(LABELS)
    assert config_of(tmp_path, labels=["x", "y", "z"]).preprocessing.label.order == ("x", "y", "z")
