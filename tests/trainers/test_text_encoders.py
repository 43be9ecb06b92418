"""Pretrained encoders: WordPiece as the tokenizers package cuts it, BERT as numpy computes it, and what is served."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from serving import reference_predictions
from serving.reference_predictions import FILE_NAME
from serving.session_model import SessionModel
from tests.pipeline.conftest import answers_over_both
from tests.trainers.test_text_models import exported, record
from trainers.errors import TrainingError
from trainers.splits import TransformedSplit
from trainers.text.encoders import PIECES, PretrainedEncoder, in_chunks, pooled, read_safetensors
from trainers.text.options import AutoOptions, NgramOptions, TransformerOptions, with_model
from trainers.text.static import (
    StaticVectors,
    averaged,
    principal_components,
    rarity,
    sums_in_context,
    vectors_of_pieces,
)
from trainers.text.train import best_candidate, kept_of
from transform.errors import PreprocessingError
from transform.wordpiece import WordPieceTokenizer, read_wordpiece

WIDTH, LAYERS, HEADS, HIDDEN, POSITIONS = 16, 2, 2, 32, 24
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyzß\u03c3\u01310123456789"
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~。「"
PIECES_OF_WORDS = ["fine", "dull", "film", "the", "un", "##aff", "##able", "##ab", "##le", "##afford", "日", "本", "語"]
PIECES_OF_WORDS += ["हद", "##द", "ᄒ", "##ᅡ", "##ᆫ", "🙂", "\u0627", "##ل", "##✈", "é", "##é", "Fine", "É"]
VOCABULARY = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *PUNCTUATION, *PIECES_OF_WORDS]


def write_safetensors(path: Path, arrays: dict[str, np.ndarray]) -> None:
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in arrays.items():
        begin = len(data)
        data += array.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [begin, len(data)]}
    written = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(written)) + written + data)


def random_weights(prefix: str = "") -> dict[str, np.ndarray]:
    """A BERT encoder's, as transformers names them."""
    source = np.random.default_rng(0)

    def linear(name: str, rows: int, columns: int) -> dict[str, np.ndarray]:
        weight, bias = source.normal(0, 0.3, [rows, columns]), source.normal(0, 0.3, [rows])
        return {f"{name}.weight": weight, f"{name}.bias": bias}

    def norm(name: str) -> dict[str, np.ndarray]:
        return {f"{name}.weight": source.normal(1, 0.2, [WIDTH]), f"{name}.bias": source.normal(0, 0.2, [WIDTH])}

    weights = {
        "embeddings.word_embeddings.weight": source.normal(0, 1, [len(VOCABULARY), WIDTH]),
        "embeddings.position_embeddings.weight": source.normal(0, 0.3, [POSITIONS, WIDTH]),
        "embeddings.token_type_embeddings.weight": source.normal(0, 0.3, [2, WIDTH]),
        **norm("embeddings.LayerNorm"),
    }
    for layer in range(LAYERS):
        of = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            weights |= linear(f"{of}.attention.self.{part}", WIDTH, WIDTH)
        weights |= linear(f"{of}.attention.output.dense", WIDTH, WIDTH) | norm(f"{of}.attention.output.LayerNorm")
        weights |= linear(f"{of}.intermediate.dense", HIDDEN, WIDTH)
        weights |= linear(f"{of}.output.dense", WIDTH, HIDDEN) | norm(f"{of}.output.LayerNorm")
    return {f"{prefix}{name}": array.astype(np.float32) for name, array in weights.items()}


CONFIG = {
    "model_type": "bert",
    "num_hidden_layers": LAYERS,
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "intermediate_size": HIDDEN,
    "max_position_embeddings": POSITIONS,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}


def write_encoder(folder: Path, weights: dict[str, np.ndarray] | None = None, **config: object) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    write_safetensors(folder / "model.safetensors", random_weights() if weights is None else weights)
    return str(folder)


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory) -> str:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def tokenizer(encoder_folder) -> WordPieceTokenizer:
    return WordPieceTokenizer(read_wordpiece(encoder_folder))


def pieces(tokenizer: WordPieceTokenizer, texts: list[bytes | str], maximum_length: int = 1000) -> list[list[str]]:
    return [[VOCABULARY[number] for number in row] for row in tokenizer(tf.constant(texts), maximum_length).to_list()]


# What `tokenizers` 0.23.3 answers for this vocabulary (BertWordPieceTokenizer's parts), without [CLS] and [SEP].
KNOWN_ANSWERS = {
    "The FINE film!": "the fine film !",
    "unaffable unaffordable unaffabl3": "un ##aff ##able un ##afford ##able un ##aff ##ab ##l ##3",
    "don't, $5.00 (e.g.)": "d ##o ##n ' t , $ 5 . 0 ##0 ( e . g . )",
    "日本語のfilm。「」": "日 本 語 [UNK] 。 「 [UNK]",
    "Ünaffáble É Straße": "un ##aff ##able e s ##t ##r ##a ##ß ##e",
    "\u03a3\u0391\u03a3 \u03c3\u03c2 \u0130stanbul \u0131I": "[UNK] [UNK] i ##s ##t ##a ##n ##b ##u ##l \u0131 ##i",
    "한하": "[UNK]",
    "हद्द": "हद ##द",
    "🙂🙂 👍🏽 fine🙂": "[UNK] [UNK] [UNK]",
    "fi\u200bne du\xadll fi\x00ne\ufffd": "fine dull fine",
    "a\xa0b\u3000c\u2028d\te\r\n": "a b c d e",
    "[CLS] fine [MASK]dull[SEP] [cls] [ MASK ]": "[CLS] fine [MASK] dull [SEP] [ c ##l ##s ] [ m ##a ##s ##k ]",
    "x" * 100: " ".join(["x", *["##x"] * 99]),
    "x" * 101: "[UNK]",
    "\ufdd0 a\ufdd1b \ufdef": "[UNK] [UNK] [UNK]",
    "\ufb01ne \uff26ine e\u0301e\u0327\u0301": "[UNK] [UNK] e ##e",
    "\u0627\u0644\u0644\u0644": "\u0627 ##\u0644 ##\u0644 ##\u0644",
    "a\u0890b a\u166db a\u1734b": "[UNK] a [UNK] b a ##b",
    "##le un##able": "# # l ##e un # # a ##b ##le",
    "fine\u202efilm\ufeffdull \U000e0041": "fine ##f ##i ##l ##m ##d ##u ##l ##l",
}


def test_texts_are_cut_as_the_tokenizers_package_cuts_them(tokenizer):
    found = dict(zip(KNOWN_ANSWERS, pieces(tokenizer, list(KNOWN_ANSWERS)), strict=True))
    assert found == {text: ["[CLS]", *known.split(), "[SEP]"] for text, known in KNOWN_ANSWERS.items()}


def test_ids_equal_those_of_the_tokenizers_package_for_every_code_point(tokenizer, encoder_folder):
    tokenizers = pytest.importorskip("tokenizers", reason="the reference, where it is installed")
    reference = tokenizers.Tokenizer(tokenizers.models.WordPiece.from_file(f"{encoder_folder}/vocab.txt"))
    reference.normalizer = tokenizers.normalizers.BertNormalizer()
    reference.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    texts = [f"a{chr(point)}b" for point in range(0x110000) if not 0xD800 <= point <= 0xDFFF][::7]
    expected = [[2, *one.ids, 3] for one in reference.encode_batch(texts)]
    assert tokenizer(tf.constant(texts), 1000).to_list() == expected


def test_bytes_that_are_no_text_count_for_nothing(tokenizer):
    assert pieces(tokenizer, [b"\xff fine\xc3 \xed\xa0\x80", b"\x00\x01\x7f", b""]) == [
        ["[CLS]", "fine", "[SEP]"],
        ["[CLS]", "[SEP]"],
        ["[CLS]", "[SEP]"],
    ]


def test_a_long_text_keeps_its_first_pieces_and_the_one_behind_it(tokenizer):
    assert pieces(tokenizer, ["unaffable fine film", "the"], maximum_length=6) == [
        ["[CLS]", "un", "##aff", "##able", "fine", "[SEP]"],
        ["[CLS]", "the", "[SEP]"],
    ]


def test_all_graphs_share_one_of_the_tokenizer_which_cuts_as_it_does_eagerly(tokenizer, monkeypatch):
    traced, words = [], WordPieceTokenizer.words
    monkeypatch.setattr(WordPieceTokenizer, "words", lambda *given: traced.append(given) or words(*given))
    texts = tf.constant(["unaffable fine film", "", "the"])
    graphs = [tf.function(lambda texts: tokenizer(texts, 7), autograph=False) for _ in range(2)]
    cut = [graph(texts).to_list() for graph in graphs]
    assert len(traced) == 1
    assert cut == [tokenizer(texts, 7).to_list()] * 2


def test_capitals_and_accents_stay_where_the_tokenizer_keeps_them(tmp_path):
    write_encoder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    cased = WordPieceTokenizer(read_wordpiece(str(tmp_path)))
    assert pieces(cased, ["Fine É fine é"]) == [["[CLS]", "Fine", "É", "fine", "é", "[SEP]"]]


def test_the_rules_of_tokenizer_json_come_before_those_of_vocab_txt(tmp_path):
    write_encoder(tmp_path)
    tokenizer_json = {
        "added_tokens": [{"id": 1, "content": "<u>"}, {"id": 3, "content": "</s>"}, {"id": 2, "content": "<s>"}],
        "normalizer": {"type": "BertNormalizer", "lowercase": False, "strip_accents": None},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["</s>", 3], "cls": ["<s>", 2]},
        "model": {
            "type": "WordPiece",
            "unk_token": "<u>",
            "continuing_subword_prefix": "@@",
            "max_input_chars_per_word": 4,
            "vocab": {"Fi": 7, "@@ne": 8, "fine": 9, "e": 10},
        },
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer_json))
    rules = read_wordpiece(str(tmp_path))
    assert WordPieceTokenizer(rules)(tf.constant(["Fine fine e</s>e finee"]), 20).to_list() == [
        [2, 7, 8, 9, 10, 3, 10, 1, 3]
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"model": {"type": "BPE"}}, "is the tokenizer BPE, None, None; expected WordPiece with BertNormalizer"),
        ({"model": {"type": "WordPiece", "vocab": {"a": 0}}}, "expected WordPiece with BertNormalizer"),
    ],
)
def test_another_tokenizer_is_refused_in_a_sentence(tmp_path, content, sentence):
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(PreprocessingError, match=sentence):
        read_wordpiece(str(tmp_path))


def test_a_vocabulary_without_the_pieces_of_bert_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(PreprocessingError, match=r"the vocabulary of 2 pieces has no '\[UNK\]'"):
        read_wordpiece(str(tmp_path))


def numpy_states(weights: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """The last layer's vectors of one text, float64 [n, width], written down from the paper and the names alone."""

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weights[f"{name}.weight"].astype(np.float64).T + weights[f"{name}.bias"]

    def heads(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(ids), HEADS, -1).transpose(1, 0, 2)

    states = weights["embeddings.word_embeddings.weight"][ids].astype(np.float64)
    states += weights["embeddings.position_embeddings.weight"][: len(ids)]
    states = norm(states + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(LAYERS):
        of = f"encoder.layer.{layer}"
        query, key, value = (heads(linear(states, f"{of}.attention.self.{part}")) for part in ("query", "key", "value"))
        scores = np.exp(query @ key.transpose(0, 2, 1) / math.sqrt(WIDTH // HEADS))
        attended = (scores / scores.sum(axis=-1, keepdims=True)) @ value
        attended = linear(attended.transpose(1, 0, 2).reshape(len(ids), WIDTH), f"{of}.attention.output.dense")
        states = norm(states + attended, f"{of}.attention.output.LayerNorm")
        inner = linear(states, f"{of}.intermediate.dense")
        inner *= 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        states = norm(states + linear(inner, f"{of}.output.dense"), f"{of}.output.LayerNorm")
    return states


TEXTS = ["the fine film", "dull", "", "日本語! unaffable", "a b c d e f g h i j k l m n o p q r s t u v w x y z"]


@pytest.mark.parametrize(("pooling", "chunk"), [("mean", 32), ("cls", 2)])
def test_vectors_equal_those_of_the_reference_whatever_stands_beside_a_text(encoder_folder, pooling, chunk):
    encoder = PretrainedEncoder(encoder_folder)
    network = encoder.network()
    given = network.input[PIECES]
    model = keras.Model(network.input, pooled(network.output, given, pooling))
    rows = encoder.pieces(tf.constant(TEXTS), POSITIONS)

    @tf.function(autograph=False, reduce_retracing=True)
    def vectors_of(rows: tf.RaggedTensor) -> tf.Tensor:
        return in_chunks(model, {PIECES: rows}, WIDTH, chunk)

    expected = [numpy_states(random_weights(), [number - 1 for number in row]) for row in rows.to_list()]
    expected = [states.mean(axis=0) if pooling == "mean" else states[0] for states in expected]
    np.testing.assert_allclose(vectors_of(rows), expected, atol=2e-5)
    assert vectors_of(rows[:0]).shape == (0, WIDTH)


def test_weights_named_after_their_model_and_older_norms_are_read(encoder_folder, tmp_path):
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): array
        for name, array in random_weights("bert.").items()
    }
    other = PretrainedEncoder(write_encoder(tmp_path, renamed)).network()
    for mine, theirs in zip(
        other.get_weights(), PretrainedEncoder(encoder_folder).network().get_weights(), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "roberta"}, "is of a model 'roberta' with absolute positions; expected bert or distilbert"),
        ({"position_embedding_type": "relative_key"}, "with relative_key positions"),
        ({"hidden_act": "mish"}, "has activation mish; expected"),
        ({"hidden_size": None}, "has no hidden_size"),
        (
            {"intermediate_size": 8},
            r"has \[32, 16\] as weight encoder.layer.0.intermediate.dense.weight, expected \[8, 16\]",
        ),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_in_a_sentence(tmp_path, change, sentence):
    with pytest.raises(TrainingError, match=sentence):
        PretrainedEncoder(write_encoder(tmp_path, **change)).network()


def test_what_is_missing_or_cut_off_is_said(encoder_folder, tmp_path):
    with pytest.raises(TrainingError, match=r"config.json cannot be read as JSON; .* name it in trainer.encoder"):
        PretrainedEncoder(str(tmp_path / "nowhere"))
    folder = write_encoder(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(TrainingError, match=r"no whole safetensors file \(an array F32 \[16\] is said to be in bytes"):
        PretrainedEncoder(folder)
    weights.write_bytes(b"PK\x03\x04 is a zip file")
    with pytest.raises(TrainingError, match="no whole safetensors file"):
        PretrainedEncoder(folder)
    weights.unlink()
    with pytest.raises(TrainingError, match=r"convert pytorch_model.bin to it"):
        PretrainedEncoder(folder)


def test_half_precision_arrays_are_read(tmp_path):
    header = json.dumps({"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "half").write_bytes(struct.pack("<Q", len(header)) + header + b"\x80\x3f\x00\xc0")
    np.testing.assert_array_equal(read_safetensors(str(tmp_path / "half"))["a"].astype(np.float32), [1, -2])


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("records") / "examples.gz")
    source = np.random.default_rng(0)
    with tf.io.TFRecordWriter(path, "GZIP") as writer:
        for number in range(80):
            word, label = (("dull", "bad"), ("fine", "good"))[number % 2]
            others = ["film the a unaffable 日本"[: source.integers(1, 20)] for _ in range(source.integers(1, 3))]
            writer.write(record(" ".join([*others, word]).encode(), label))
    return path


TRAININGS = {
    "head": {"trained_layers": 0, "hidden_units": 64, "learning_rate": 0.02, "epochs": 60, "batch_size": 16},
    "head beside n-grams": {"trained_layers": 0, "ngrams": True, "learning_rate": 0.02, "epochs": 20, "batch_size": 16},
    "last layer": {"trained_layers": 1, "learning_rate": 0.01, "epochs": 20, "batch_size": 16},
    "all, in bfloat16": {
        "precision": "bfloat16",
        "learning_rate": 5e-3,
        "epochs": 6,
        "batch_size": 16,
        "pooling": "cls",
    },
}


def assert_served_as_trained(trainer: dict, records: str, folder: Path, tolerance: float) -> Path:
    """Exported and served, the probabilities and the labels are the training graph's, and nearly all right.

    Returns:
        what the Trainer left.
    """
    saved_model = exported(folder, records, trainer)
    written = reference_predictions.read(f"{Path(saved_model).parent}/{FILE_NAME}")
    serialized = list(tf.data.TFRecordDataset(records, "GZIP").as_numpy_iterator())
    session = SessionModel(saved_model)
    answers = session.run("serve_examples", {"examples": np.array(serialized, object)})["probabilities"]
    session.close()
    np.testing.assert_allclose(answers, written.probabilities, atol=tolerance)
    texts = [tf.train.Example.FromString(one).features.feature["text"].bytes_list.value[0] for one in serialized]
    served = answers_over_both(
        saved_model, {"text": [text.decode() for text in texts]}, {"text": np.array(texts, object)}, folder
    )
    assert served == written.labels
    assert np.mean([label == ["bad", "good"][number % 2] for number, label in enumerate(served)]) > 0.9
    return Path(saved_model).parent


@pytest.mark.parametrize("training", TRAININGS)
def test_what_is_served_answers_as_the_training_graph_over_rest_and_grpc(training, encoder_folder, records, tmp_path):
    trainer = {"model": "transformer", "encoder": encoder_folder, "maximum_length": POSITIONS, **TRAININGS[training]}
    left = assert_served_as_trained(trainer, records, tmp_path, 5e-2 if "bfloat16" in training else 1e-5)
    before = PretrainedEncoder(encoder_folder).network()
    trained = keras.models.load_model(left / "model.keras")
    changed = {
        layer.name
        for layer in (layer for layer in before.layers if layer.weights)
        for old, new in zip(layer.get_weights(), trained.get_layer(layer.name).get_weights(), strict=True)
        if not np.array_equal(old, new)
    }
    assert {name[:7] for name in changed} == {
        "head": set(),
        "head beside n-grams": set(),
        "last layer": {"layer_1"},
        "all, in bfloat16": {"layer_0", "layer_1", "norm", "piece_v", "positio"},
    }[training]


def static_options(folder: str, **options: object) -> dict:
    return {"model": "static", "encoder": folder, "learning_rate": 0.01, "epochs": 20, "batch_size": 16, **options}


def test_static_vectors_beside_ngrams_are_served_as_they_were_trained(encoder_folder, records, tmp_path):
    left = assert_served_as_trained(static_options(encoder_folder, vector_width=8), records, tmp_path, 1e-5)
    kept = keras.models.load_model(left / "model.keras").get_layer("piece_vectors").get_weights()[0]
    assert kept.shape == (len(VOCABULARY), 8) and not np.allclose(kept, alone(encoder_folder), atol=1e-3)


def test_without_context_pieces_a_vector_is_that_of_a_text_of_one_piece(encoder_folder, records, tmp_path):
    trainer = static_options(encoder_folder, vector_width=8, context_pieces=0, ngrams=False)
    left = assert_served_as_trained(trainer, records, tmp_path, 1e-5)
    kept = keras.models.load_model(left / "model.keras").get_layer("piece_vectors").get_weights()[0]
    np.testing.assert_array_equal(kept, alone(encoder_folder))


def alone(folder: str) -> np.ndarray:
    return StaticVectors(folder, 8).of(pieces_of(folder, ["fine"]), 0)


def pieces_of(folder: str, texts: list[str]) -> TransformedSplit:
    pieces = StaticVectors(folder, 8).pieces(tf.constant(texts), 100)
    return TransformedSplit([], {PIECES: pieces}, np.zeros(len(texts), np.int64), left_out=0, fingerprint="")


def test_a_piece_has_the_mean_vector_of_where_it_stands_and_of_itself_alone(encoder_folder):
    texts = ["the fine film", "dull", "", "fine the fine"]
    encoder = PretrainedEncoder(encoder_folder)
    network = encoder.network()
    around = np.array(encoder.tokenizer.around, np.int32) + 1
    found, counts = sums_in_context(network, around, pieces_of(encoder_folder, texts).features[PIECES], len(VOCABULARY))
    expected = np.zeros_like(found)
    for text in texts:
        numbers = [VOCABULARY.index(word) for word in text.split()]
        given = np.array([[around[0], *(number + 1 for number in numbers), around[1]]], np.int32)
        for number, vector in zip(numbers, network.predict({PIECES: given}, verbose=0)[0, 1:-1], strict=True):
            expected[number] += vector
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert counts[VOCABULARY.index("fine")] == 3 and counts.sum() == 7
    mean = (found + vectors_of_pieces(network, around)) / (1 + counts[:, None])
    whole = StaticVectors(encoder_folder, 8).of(pieces_of(encoder_folder, texts), 1000)
    np.testing.assert_allclose(whole, principal_components(mean, 8) * rarity(len(mean))[:, None], atol=1e-5)


def test_of_many_texts_the_encoder_reads_evenly_spread_ones_with_about_the_pieces_asked_for(encoder_folder):
    split = pieces_of(encoder_folder, ["the"] * 600 + ["dull"] * 600)
    vectors = StaticVectors(encoder_folder, 8)
    few = vectors.of(split, 2)
    both = (few - alone(encoder_folder))[[VOCABULARY.index(word) for word in ("the", "dull")]]
    assert (np.abs(both).max(axis=1) > 1e-4).all()
    np.testing.assert_allclose(few, vectors.of(pieces_of(encoder_folder, ["the", "dull"]), 1000), atol=1e-6)


def test_vectors_that_a_folder_holds_are_trained_where_that_is_asked_for(tmp_path, records):
    given = np.random.default_rng(0).normal(size=[len(VOCABULARY), 12]).astype(np.float32)
    folder = tmp_path / "model2vec"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    write_safetensors(folder / "model.safetensors", {"embeddings": given})
    np.testing.assert_array_equal(StaticVectors(str(folder), 256).of(pieces_of(str(folder), ["dull"]), 1000), given)
    trainer = static_options(str(folder), trained_vectors=True, ngrams=False)
    left = assert_served_as_trained(trainer, records, tmp_path, 1e-5)
    moved = np.abs(keras.models.load_model(left / "model.keras").get_layer("piece_vectors").get_weights()[0] - given)
    words = [VOCABULARY.index(word) for word in ("fine", "dull")]
    assert moved[words].min() > 1e-3 and moved[VOCABULARY.index("[MASK]")].max() == 0


def test_a_text_is_the_mean_of_the_vectors_of_its_pieces(encoder_folder):
    vectors = alone(encoder_folder)
    taken = keras.Input([None], dtype="int32")
    mean = keras.Model(taken, averaged(taken, vectors, is_trained=False))
    pieces = pieces_of(encoder_folder, ["the fine film", "dull", ""]).features[PIECES]
    found = mean.predict(pieces.to_tensor(), verbose=0)
    known = {word: vectors[VOCABULARY.index(word)] for word in ("the", "fine", "film", "dull")}
    expected = [sum(known[word] for word in ("the", "fine", "film")), known["dull"]]
    for vector, sums in zip(found, expected, strict=False):
        np.testing.assert_allclose(vector, sums / np.linalg.norm(sums), atol=1e-6)
    np.testing.assert_array_equal(found[2], 0)


def test_vectors_are_reduced_to_the_directions_in_which_they_differ_most():
    vectors = np.random.default_rng(0).normal(size=[50, 6]) @ np.diag([5, 4, 3, 1, 0.1, 0.1]) + 7
    reduced = principal_components(vectors, 3)
    centred = vectors - vectors.mean(axis=0)
    _, strengths, directions = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(reduced), np.abs(centred @ directions[:3].T), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(reduced, axis=0), strengths[:3], rtol=1e-5)


def test_pieces_that_are_frequent_weigh_less():
    weights = rarity(30_000)
    assert (np.diff(weights) > 0).all() and weights[0] < 0.01 < 0.9 < weights[-1] < 1


def test_auto_tries_what_there_are_weights_for_and_serves_the_fastest_of_the_good(
    encoder_folder, records, tmp_path, monkeypatch
):
    monkeypatch.setattr("trainers.blending.FOLDS", 2)
    options = {"model": "auto", "encoder": encoder_folder, "maximum_length": POSITIONS}
    left = assert_served_as_trained(options, records, tmp_path, 1e-5)
    tried = json.loads((left / "provenance.json").read_text())["texts"]["tried"]
    assert (tried["rows"], tried["folds"], list(tried["members"])) == (80, 2, ["ngrams", "static", "transformer"])
    for one in tried["members"].values():
        accuracy, low, high = one["accuracy"]
        assert low <= accuracy <= high and one["milliseconds"] > 0 and one["seconds"] > 0
        assert one["cross_entropy"][1] < one["cross_entropy"][0] < one["cross_entropy"][2]
    assert tried["members"][tried["kept"]]["accuracy"][0] > 0.9
    names = {layer.name for layer in keras.models.load_model(left / "model.keras").layers}
    own = {"ngrams": "words_ratios", "static": "piece_vectors", "transformer": "vector_norm"}
    assert own[tried["kept"]] in names


def test_the_fastest_is_kept_of_those_that_are_as_good_as_the_best_to_within_the_standard_error():
    best = np.array([0.1, 0.3, 0.2, 0.2])
    milliseconds = {"best": 3.0, "close": 1.0, "worse": 0.5}
    losses = {"best": best, "close": best + np.array([0.1, -0.1, 0.1, -0.05]), "worse": best + 0.1}
    kept, why = kept_of(losses, milliseconds)
    assert kept == "close" and why == "best, the best, is better by no more than the standard error, and slower"
    assert kept_of(losses, milliseconds | {"close": 4.0}) == ("best", "its cross entropy is the smallest of 3")


def test_auto_without_weights_trains_ngrams_and_tries_nothing():
    chosen, tried = best_candidate(AutoOptions(model="auto", seed=3, class_weights="balanced"), ["nowhere"], "nowhere")
    assert chosen == NgramOptions(seed=3, class_weights="balanced") and tried == {}


def test_a_frozen_encoder_is_trained_for_a_shorter_time_beside_ngrams_and_a_trained_one_has_none_beside_it():
    frozen = {"model": "transformer", "encoder": "/folder", "trained_layers": 0}
    assert TransformerOptions.model_validate(frozen).epochs == 30
    assert TransformerOptions.model_validate(frozen | {"ngrams": True}).epochs == 10
    assert TransformerOptions.model_validate(frozen | {"ngrams": True, "epochs": 4}).epochs == 4
    with pytest.raises(ValueError, match="trained_layers is 2; set it to 0, or take ngrams out"):
        TransformerOptions.model_validate(frozen | {"ngrams": True, "trained_layers": 2})


def test_an_encoder_without_a_model_is_auto_and_nothing_at_all_is_ngrams():
    assert with_model({"encoder": "folder"}) == {"model": "auto", "encoder": "folder"}
    assert with_model({"epochs": 3}) == {"model": "ngrams", "epochs": 3}
