"""Each model of texts from records to a SavedModel: what a session answers, tables of a TF-Hub model included."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from pydantic import TypeAdapter
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tfx.components.trainer.fn_args_utils import FnArgs

from benchmarks.harness.pipelines import transform_graph
from benchmarks.text.languages import character_ngrams, sentences
from components.table_example_gen.facts import choice_of_terms
from serving import reference_predictions
from serving.reference_predictions import FILE_NAME
from serving.session_model import SessionModel
from serving.signatures.common import Labels, ServedModel, export, freeze
from serving.signatures.text import served_model
from tests.pipeline.conftest import answers_over_both
from trainers.errors import TrainingError
from trainers.text.embeddings import TextEmbedding
from trainers.text.options import TextTrainerOptions
from trainers.text.train import run_fn
from transform.options import LabelOptions, TextOptions
from transform.text import preprocessing_fn

SPEC = {name: tf.io.VarLenFeature(tf.string) for name in ("text", "label")}
WORDS = ["dull", "fine", "film", "the"]
ODD_TEXTS = [b"", b"   ", b"qqqq", "👍 映画".encode(), b"\x00", b"\xff\xfe", b"fine " * 2**18]


class WordVectors(tf.Module):
    """As nnlm-en-dim50 on TF-Hub: words looked up in a table with an asset, and the mean of their vectors."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        (folder / "tokens.txt").write_text("\n".join(WORDS))
        initializer = tf.lookup.TextFileInitializer(
            str(folder / "tokens.txt"),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        self.table = tf.lookup.StaticHashTable(initializer, default_value=-1)
        self.vectors = tf.Variable(np.eye(len(WORDS), dtype=np.float32) * 3)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        """The mean over the known words, which is NaN where there are none."""
        ids = tf.ragged.map_flat_values(self.table.lookup, tf.strings.split(texts))
        known = tf.ragged.boolean_mask(ids, ids >= 0)
        return tf.reduce_mean(tf.ragged.map_flat_values(tf.gather, self.vectors, known), axis=1)


@pytest.fixture(scope="module")
def hub_model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("hub")
    tf.saved_model.save(WordVectors(folder), str(folder / "model"))
    (folder / "tokens.txt").unlink()  # the model has its own
    return str(folder / "model")


def record(text: bytes, label: str | None = None) -> bytes:
    example = tf.train.Example()
    example.features.feature["text"].bytes_list.value.append(text)
    if label:
        example.features.feature["label"].bytes_list.value.append(label.encode())
    return example.SerializeToString()


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("records") / "examples.gz")
    source = np.random.default_rng(0)
    with tf.io.TFRecordWriter(path, "GZIP") as writer:
        for number in range(200):
            word, label = (("dull", "bad"), ("fine", "good"))[number % 2]
            others = [WORDS[2 + source.integers(2)] for _ in range(source.integers(1, 4))]
            writer.write(record(" ".join([*others, word]).encode(), label))
    return path


@cache
def graph_of(records: str, preprocessing: str) -> str:
    """Transform's graph of the records, beside them; the same for all trainers that take the same features."""
    tf.compat.v1.reset_default_graph()  # other tests leave annotations there, which tft would read
    folder = tempfile.mkdtemp(prefix="transform", dir=Path(records).parent)
    transform_graph(preprocessing_fn, {"preprocessing": preprocessing}, SPEC, records, folder)
    return f"{folder}/graph"


def exported(
    folder: Path,
    records: str,
    trainer: dict,
    base_model: str = "",
    serving: str = "{}",
    text_options: TextOptions | None = None,
) -> str:
    """The SavedModel that Transform and run_fn make of the records, where `base_model` is served."""
    options = TypeAdapter(TextTrainerOptions).validate_python(trainer)
    if text_options is None:
        text_options = TextOptions(label=LabelOptions(column="label"), minimum_term_count=1).completed(options.features)
    custom_config = {
        "preprocessing": text_options.model_dump_json(),
        "trainer": options.model_dump_json(),
        "code_fingerprint": "code",
        "serving": serving,
    }
    run_fn(
        FnArgs(
            train_files=[records],
            model_run_dir=f"{folder}/model_run",
            eval_files=[records],
            transform_output=graph_of(records, custom_config["preprocessing"]),
            serving_model_dir=f"{folder}/model/Format-Serving",
            base_model=base_model,
            custom_config=custom_config,
        )
    )
    found = operations_of_requests(f"{folder}/model/Format-Serving")
    # A table is filled when the model is loaded: a request that did it would read all of a vocabulary each time.
    assert {name for name in found if name.startswith("InitializeTable")} == set()
    return f"{folder}/model/Format-Serving"


def operations_of_requests(saved_model: str) -> set[str]:
    """Of all signatures, without those of loading."""
    (graph,) = SavedModel.FromString(Path(saved_model, "saved_model.pb").read_bytes()).meta_graphs
    functions = {function.signature.name: function.node_def for function in graph.graph_def.library.function}
    nodes = {node.name: node for node in graph.graph_def.node}
    outputs = [info.name for signature in graph.signature_def.values() for info in signature.outputs.values()]
    waiting = [nodes[name.partition(":")[0]] for name in outputs if name]
    found, called = set(), set()
    while waiting:
        node = waiting.pop()
        found.add(node.op)
        for value in node.attr.values():
            for name in {value.func.name, *(function.name for function in value.list.func)} - {"", *called}:
                called.add(name)
                waiting += functions[name]
    return found


MODELS = {
    "ngrams": {"learning_rate": 0.01},
    "encoder": {"learning_rate": 0.01, "epochs": 12, "filters": 8},
    "hub": {"learning_rate": 0.01, "batch_size": 16},
}


COVERAGE = '{"unknown": {"label": "unsure", "coverage": 0.6}}'


@pytest.fixture(scope="module", params=list(MODELS))
def trainer(request, tmp_path_factory) -> dict:
    options = {"model": request.param, "warm_start": True, **MODELS[request.param]}
    handle = {"handle": str(tmp_path_factory.mktemp("handle") / "hub")} if request.param == "hub" else {}
    return options | handle


@pytest.fixture(scope="module")
def saved_model(trainer, tmp_path_factory, records, hub_model) -> str:
    with at_its_handle(hub_model, trainer):
        return exported(tmp_path_factory.mktemp(trainer["model"]), records, trainer, serving=COVERAGE)


@contextmanager
def at_its_handle(hub_model: str, trainer: dict) -> Iterator[None]:
    """The model that `trainer` names is there while it trains; what is served needs nothing from there."""
    if "handle" not in trainer:
        yield
        return
    shutil.copytree(hub_model, trainer["handle"])
    yield
    shutil.rmtree(trainer["handle"])


def test_a_session_answers_as_the_training_graph_does(saved_model, records):
    expected = reference_predictions.read(f"{Path(saved_model).parent}/{FILE_NAME}")
    serialized = list(tf.data.TFRecordDataset(records, "GZIP").as_numpy_iterator())
    session = SessionModel(saved_model)
    answers = session.run("serve_examples", {"examples": np.array(serialized, object)})["probabilities"]
    np.testing.assert_allclose(answers, expected.probabilities, atol=1e-6)
    # A session would copy a graph that the search for variables without a value has made larger than by those.
    before = session._session.graph.get_operations()
    assert session.unset_variables() == []
    assert {added.type for added in set(session._session.graph.get_operations()) - {*before}} <= {"VarIsInitializedOp"}
    session.close()


def test_what_rows_are_gathered_from_is_one_variable_of_an_export_and_other_weights_are_constants(tmp_path):
    chance = np.random.default_rng(0)
    table, kernel = (tf.Variable(chance.normal(size=size).astype(np.float32)) for size in ([300, 8], [8, 64]))
    frozen = freeze(lambda ids: tf.gather(table, ids) @ kernel, tf.TensorSpec([None], tf.int64))
    asked = {"ids": tf.TensorSpec([None], tf.int64)}
    model = ServedModel({name: (lambda ids: {"found": frozen(ids)}, asked) for name in ("one", "other")}, {})
    assert [variable.shape.as_list() for variable in model.tables] == [[300, 8]]
    export(model, str(tmp_path / "model"))
    session, ids = SessionModel(str(tmp_path / "model")), np.array([7, 0, 299, 7])
    for name in ("one", "other"):
        np.testing.assert_allclose(session.run(name, {"ids": ids})["found"], table.numpy()[ids] @ kernel.numpy(), 1e-5)


def test_the_model_has_learned_what_the_words_say(saved_model):
    session = SessionModel(saved_model)
    asked = np.array([b"the fine film", b"film the dull", b"dull"], object)
    assert session.run("classify", {"text": asked})["labels"][:, 0].tolist() == [b"good", b"bad", b"bad"]
    session.close()


def test_texts_without_one_label_in_their_set_are_answered_unknown_over_rest_and_grpc(saved_model, records, tmp_path):
    written = reference_predictions.read(f"{Path(saved_model).parent}/{FILE_NAME}")
    rule = provenance(saved_model)["unknown"]
    assert (rule["calibrated_on"], rule["coverage"]) == ("half_of_eval", 0.6)
    assert rule["rows"] == sum(int(id_, 16) % 2 == 0 for id_ in written.ids)
    alone = (written.probabilities >= np.float32(rule["threshold"])).sum(axis=1) == 1
    expected = [label if one else "unsure" for label, one in zip(written.labels, alone, strict=True)]
    assert expected.count("unsure") > 10 and {"good", "bad"} & set(expected)
    serialized = tf.data.TFRecordDataset(records, "GZIP").as_numpy_iterator()
    texts = [tf.train.Example.FromString(one).features.feature["text"].bytes_list.value[0] for one in serialized]
    asked = {"text": [text.decode() for text in texts]}
    assert answers_over_both(saved_model, asked, {"text": np.array(texts, object)}, tmp_path) == expected
    assert written.served == expected


def test_odd_texts_have_finite_answers_and_leave_the_others_alone(saved_model):
    session = SessionModel(saved_model)
    (alone,) = session.run("classify", {"text": np.array([b"the fine film"], object)})["probabilities"]
    for odd in ODD_TEXTS:
        answer = session.run("classify", {"text": np.array([odd, b"the fine film"], object)})["probabilities"]
        np.testing.assert_allclose(answer.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(answer[1], alone, atol=1e-6)
    session.close()


def provenance(saved_model: str) -> dict:
    return json.loads((Path(saved_model).parent / "provenance.json").read_text())


def test_a_warm_start_begins_with_the_weights_of_the_served_model(saved_model, trainer, records, hub_model, tmp_path):
    assert provenance(saved_model)["warm_start"].startswith("cold: the served model, if there is one")
    # One step that moves nothing: the answers are those of the start.
    still = trainer | {"epochs": 1, "learning_rate": 1e-12, "batch_size": 200}
    with at_its_handle(hub_model, trainer):
        started = exported(tmp_path, records, still, base_model=saved_model)
    assert provenance(started)["warm_start"].startswith("warm: from the served model")
    first, second = (reference_predictions.read(f"{Path(path).parent}/{FILE_NAME}") for path in (saved_model, started))
    assert first.ids == second.ids
    np.testing.assert_allclose(second.probabilities, first.probabilities, atol=1e-5)


def test_an_embedding_from_elsewhere_starts_cold(hub_model, records, tmp_path):
    options = {"model": "hub", "warm_start": True, "epochs": 1}
    another = str(shutil.copytree(hub_model, tmp_path / "another"))
    served = exported(tmp_path / "served", records, options | {"handle": another})
    started = exported(tmp_path / "started", records, options | {"handle": hub_model}, base_model=served)
    assert provenance(started)["warm_start"] == "cold: other embedding than the served model's"


def test_an_embedding_gives_the_models_vectors_and_zero_for_no_number(hub_model):
    vectors = TextEmbedding(hub_model)(tf.constant(["fine film", "qqqq", ""])).numpy()
    np.testing.assert_allclose(vectors, [[0, 1.5, 1.5, 0], [0] * 4, [0] * 4])


def test_an_embedding_of_tokens_is_refused(tmp_path):
    model = tf.Module()
    model.__class__ = type("Tokens", (tf.Module,), {"__call__": _ragged_lengths})
    tf.saved_model.save(model, str(tmp_path))
    with pytest.raises(TrainingError, match=r"answers 2 texts with \(2, 1, 1\), expected \[2, width\]"):
        TextEmbedding(str(tmp_path))


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
def _ragged_lengths(self: tf.Module, texts: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.strings.length(texts), tf.float32)[:, None, None]


@pytest.mark.parametrize(
    ("handle", "sentence"),
    [
        (
            "https://hub.invalid/nnlm/2",
            "nnlm/2: the model cannot be loaded: .*; download it elsewhere, and set trainer",
        ),
        ("/nowhere/nnlm", "/nowhere/nnlm: the model cannot be loaded: .*; expected a directory with saved_model.pb"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_sentence(handle, sentence):
    with pytest.raises(TrainingError, match=sentence) as stopped:
        TextEmbedding(handle)
    assert "\n" not in str(stopped.value)


def test_all_signatures_share_one_graph_of_the_network(tmp_path):
    traced = []

    def predict(features: dict[str, tf.Tensor]) -> tf.Tensor:
        traced.append(features)
        return tf.fill([tf.size(features["text"]), 2], 0.5)

    (tmp_path / "labels").write_text("no\nyes\n")
    spec = {name: tf.io.FixedLenFeature([], tf.string) for name in ("text", "label")}
    labels = Labels(str(tmp_path / "labels"))
    model = served_model(dict, predict, labels, spec, "text", classes=2, resources={}, explain=8)
    assert len(model.concrete_signatures) == 5
    assert len(traced) == 1


@pytest.mark.parametrize("language", ["Japanese", "Arabic"])
def test_a_hundred_sentences_are_served_by_default_as_well_as_scikit_learn_tells_them(language, tmp_path):
    texts, labels = sentences(language, 200, seed=0)
    order = np.random.default_rng(0).permutation(200)
    learned, asked = [[texts[row] for row in rows] for rows in (order[:100], order[100:])]
    of_learned, truth = [[labels[row] for row in rows] for rows in (order[:100], order[100:])]
    path = str(tmp_path / "examples.gz")
    with tf.io.TFRecordWriter(path, "GZIP") as writer:
        for text, label in zip(learned, of_learned, strict=True):
            writer.write(record(text.encode(), label))
    choice = choice_of_terms(learned)
    assert choice.kind == {"Japanese": "characters", "Arabic": "words"}[language]
    options = TextOptions(label=LabelOptions(column="label")).with_terms(choice.kind)
    saved_model = exported(tmp_path, path, {"model": "ngrams"}, text_options=options)
    assert (
        provenance(saved_model)["texts"]["terms"]
        == {
            "Japanese": "sequences of 1 to 4 characters",
            "Arabic": "sequences of up to 2 words and sequences of 3 to 5 characters",
        }[language]
    )
    encoded = {"text": np.array([text.encode() for text in asked], object)}
    served = answers_over_both(saved_model, {"text": asked}, encoded, tmp_path)
    theirs = character_ngrams(learned, of_learned, asked)
    ours, theirs = (np.mean([one == true for one, true in zip(told, truth, strict=True)]) for told in (served, theirs))
    assert ours > 0.8 and ours >= theirs - 0.02
