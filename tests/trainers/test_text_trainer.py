"""The trainer of texts, with warm start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from serving.reference_predictions import example_id
from tests.trainers.test_fitting import killed_after
from trainers import row_store
from trainers.row_store import RowMemory, RowStore
from trainers.splits import TransformedBatch, TransformedSplit, dense_batch
from trainers.text.models import (
    TextClassifier,
    encoder_classifier,
    log_count_ratios,
    ngram_classifier,
    ragged_terms,
    ragged_tokens,
    weighted_sum,
)
from trainers.text.options import EncoderOptions, NgramOptions, read_trainer_options
from trainers.text.train import fit_text
from trainers.warm_start import MeaningOfWeights, start_warm, write_warm_start
from transform.text import UNKNOWN_TOKEN, WEIGHTS_OF

VOCABULARY = 20
LENGTH = 8


def features_of(terms: np.ndarray) -> dict[str, tf.Tensor]:
    return {"words": tf.constant(terms), "word_weights": tf.constant(np.where(terms > 0, 0.5, 0).astype(np.float32))}


def split(rows: int = 600, seed: int = 0, signs: bool = True, classes: int = 2) -> TransformedSplit:
    """Texts of four terms; the label says which of the first terms is among them, or is random where not `signs`."""
    source = np.random.default_rng(seed)
    labels = source.integers(0, classes, size=rows)
    terms = np.zeros([rows, LENGTH], np.int64)
    terms[:, :4] = source.integers(classes + 1, VOCABULARY + 1, size=[rows, 4])
    if signs:
        terms[:, 1] = 1 + labels
    return as_split(ragged_terms(features_of(terms)), labels)


def as_split(features: dict, labels: np.ndarray) -> TransformedSplit:
    return TransformedSplit([str(row) for row in range(len(labels))], features, labels, left_out=0, fingerprint="")


def trained(train: TransformedSplit, classes: int = 2, **options) -> TextClassifier:
    chosen = NgramOptions(**{"epochs": 10, "learning_rate": 0.01, "embedding_width": 8, **options})
    keras.utils.set_random_seed(chosen.seed)
    classifier = ngram_classifier(train, {"words": VOCABULARY}, classes, chosen)
    fit_text(classifier, train, chosen)
    return classifier


def predict(classifier: TextClassifier, terms: list[list[int]]) -> np.ndarray:
    return classifier.model.predict(dense_batch(classifier.inputs(features_of(np.array(terms)))), verbose=0)


@pytest.fixture(scope="module")
def classifier() -> TextClassifier:
    return trained(split())


def test_the_model_learns_which_terms_tell_the_label(classifier):
    test = split(seed=1)
    predicted = classifier.model.predict(dense_batch(test.features), verbose=0).argmax(axis=1)
    assert (predicted == test.labels).mean() > 0.97


def test_terms_may_stand_in_any_order_and_a_row_beside_longer_ones(classifier):
    (alone,) = predict(classifier, [[1, 5, 6]])
    beside, _ = predict(classifier, [[6, 1, 5, 0, 0, 0], [2, 3, 4, 5, 6, 7]])
    np.testing.assert_allclose(beside, alone, atol=1e-6)


def test_texts_on_disk_are_learned_as_those_in_memory_also_after_a_kill(classifier, monkeypatch, tmp_path):
    rows = split()
    ids = [example_id(id_.encode()) for id_ in rows.ids]
    all_of_them = TransformedBatch(ids, rows.features, rows.labels, np.ones(len(ids)))
    monkeypatch.setattr(row_store, "transformed_batches", lambda *_, **__: iter([all_of_them]))
    store = RowMemory(1, tmp_path, 1).read("train", [], None, ragged_terms)
    assert isinstance(store, RowStore)

    def fitted(folder: str) -> TextClassifier:
        chosen = NgramOptions(epochs=10, learning_rate=0.01, embedding_width=8)
        keras.utils.set_random_seed(chosen.seed)
        found = ngram_classifier(store, {"words": VOCABULARY}, 2, chosen)
        for ours, theirs in zip(found.model.layers, classifier.model.layers, strict=True):
            if ours.name.endswith("_ratios"):
                np.testing.assert_allclose(ours.get_weights(), theirs.get_weights())
        fit_text(found, store, chosen, tmp_path / folder)
        return found

    with killed_after("6"):
        fitted("killed")
    resumed, whole = fitted("killed"), fitted("whole")
    test = dense_batch(split(seed=1).features)
    probabilities = [one.model.predict(test, verbose=0) for one in (resumed, whole, classifier)]
    np.testing.assert_allclose(probabilities[0], probabilities[1], atol=1e-5)
    np.testing.assert_allclose(probabilities[1], probabilities[2], atol=0.05)


def test_balanced_classes_make_a_rare_label_as_likely_as_a_frequent_one():
    unknown = split(rows=400, signs=False)
    rare = as_split(unknown.features, (np.arange(400) % 10 == 0).astype(np.int64))
    of_rare = {
        kind: trained(rare, epochs=4, class_weights=kind)
        .model.predict(dense_batch(rare.features), verbose=0)[:, 1]
        .mean()
        for kind in ("none", "balanced")
    }
    assert of_rare["none"] < 0.2 and 0.4 < of_rare["balanced"] < 0.6


def test_a_text_without_terms_leans_to_the_frequent_class():
    train = split(signs=False)
    train.labels[:] = np.arange(600) % 4 == 0
    classifier = trained(train, epochs=20, l2=0.1)
    (frequent, rare), again = predict(classifier, [[0, 0, 0], [0, 0, 0]])
    assert 0.55 < frequent < 0.85
    assert frequent + rare == pytest.approx(1)
    np.testing.assert_array_equal(again, [frequent, rare])


def test_the_same_seed_gives_the_same_model(classifier):
    asked = [[1, 5, 6], [2, 7, 8]]
    np.testing.assert_allclose(predict(trained(split()), asked), predict(classifier, asked), atol=1e-5)


def test_more_than_two_classes_are_learned():
    classifier = trained(split(classes=3), classes=3)
    assert predict(classifier, [[1], [2], [3]]).argmax(axis=1).tolist() == [0, 1, 2]


def test_the_saved_model_loads_without_any_code_of_ours(classifier, tmp_path):
    classifier.model.save(tmp_path / "model.keras")
    inputs = dense_batch(classifier.inputs(features_of(np.array([[1, 5, 6]]))))
    loaded = keras.models.load_model(tmp_path / "model.keras")
    # Called directly: the functions that `predict` compiles for the two can round apart.
    np.testing.assert_array_equal(loaded(inputs), classifier.model(inputs))


def test_a_weighted_sum_is_over_the_terms_of_a_text():
    vectors = np.array([[[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]]], np.float32)
    weights = np.array([[1.0, 0.5, 0.0]], np.float32)
    np.testing.assert_allclose(weighted_sum(vectors, weights), [[6.0, 12.0]])


def test_log_count_ratios_are_those_of_naive_bayes():
    terms = tf.ragged.constant([[1, 2], [1], [2, 3]], dtype=tf.int32)
    ratios = log_count_ratios(terms, np.array([0, 0, 1]), size=3, classes=2)
    inside = np.array([1, 3, 2, 1]) / 7  # of class 0, each count and one more; the first is that of padding
    outside = np.array([1, 1, 2, 2]) / 6
    expected = np.abs(np.log(inside / outside)) * [0, 1, 1, 1]
    np.testing.assert_allclose(ratios, np.stack([expected, expected], axis=1), rtol=1e-6)


def test_padding_is_left_out_and_comes_back_only_as_far_as_a_batch_needs_it():
    ragged = ragged_terms(features_of(np.array([[3, 1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 0]])))
    assert ragged["words"].to_list() == [[3, 1], [2], []]
    assert ragged["word_weights"].to_list() == [[0.5, 0.5], [0.5], []]
    batch = dense_batch(ragged, tf.constant([1, 2]))
    assert batch["words"].numpy().tolist() == [[2], [0]]


def test_texts_without_any_known_term_can_still_be_trained_on():
    train = as_split(ragged_terms(features_of(np.zeros([4, LENGTH], np.int64))), np.array([0, 1, 1, 1]))
    assert np.isfinite(predict(trained(train), [[0, 0]])).all()


def sequences(rows: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Texts of five tokens that hold 2 and 3; the label says which of them comes first."""
    source = np.random.default_rng(seed)
    labels = source.integers(0, 2, size=rows)
    tokens = np.zeros([rows, LENGTH], np.int64)
    tokens[:, :5] = source.integers(4, VOCABULARY, size=[rows, 5])
    places = source.integers(0, 4, size=rows)
    tokens[np.arange(rows), places] = 2 + labels
    tokens[np.arange(rows), places + 1] = 3 - labels
    return tokens, labels


@pytest.fixture(scope="module")
def encoder() -> TextClassifier:
    tokens, labels = sequences()
    options = EncoderOptions(model="encoder", epochs=15, learning_rate=0.01, filters=8, filter_widths=(2,), dropout=0.1)
    keras.utils.set_random_seed(0)
    train = as_split(ragged_tokens({"tokens": tf.constant(tokens)}), labels)
    classifier = encoder_classifier(VOCABULARY, 2, options)
    fit_text(classifier, train, options)
    return classifier


def encode(encoder: TextClassifier, tokens: np.ndarray) -> np.ndarray:
    return encoder.model.predict(dense_batch(encoder.inputs({"tokens": tf.constant(tokens)})), verbose=0)


def test_the_encoder_learns_what_only_the_order_of_tokens_tells(encoder):
    tokens, labels = sequences(seed=1)
    assert (encode(encoder, tokens).argmax(axis=1) == labels).mean() > 0.97


def test_the_encoders_answer_does_not_depend_on_longer_texts_beside_it(encoder):
    tokens = np.zeros([2, 40], np.int64)
    tokens[0, :3], tokens[1] = [7, 2, 3], 5
    np.testing.assert_allclose(encode(encoder, tokens)[0], encode(encoder, tokens[:1])[0], atol=1e-6)


def test_the_encoder_has_a_finite_answer_to_texts_without_any_known_token(encoder):
    answers = encode(encoder, np.array([[0, 0, 0], [1, 1, 0]]))
    assert np.isfinite(answers).all()
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-6)


def test_options_know_their_model_from_its_name():
    assert isinstance(read_trainer_options('{"model": "encoder", "filters": 3}'), EncoderOptions)
    with pytest.raises(ValidationError, match="filters"):
        read_trainer_options('{"model": "ngrams", "filters": 3}')


TEXTS = [["a", "good", "film"], ["a", "bad", "film"], ["good"], ["dull", "film"]]
LABELS = np.array([1, 0, 1, 0])
# "a" is both a word and a character.
KNOWN = {"words": ["film", "a", "good", "bad", "dull"], "characters": [*"abdfgilmou"]}
MOVED = {kind: tokens[::-1] for kind, tokens in KNOWN.items()}
GROWN = {"words": ["fine", *MOVED["words"]], "characters": [*"n", *MOVED["characters"]]}
LAYERS = ["words_scaled", "words_linear", "words_embedding", "characters_scaled"]


def meaning(vocabularies: Mapping[str, Sequence[str]]) -> MeaningOfWeights:
    return MeaningOfWeights(
        columns={"text": "string"}, preprocessing={"word_ngrams": 1}, labels=["no", "yes"], vocabularies=vocabularies
    )


def numbered(texts: list[list[str]], vocabularies: Mapping[str, Sequence[str]]) -> dict[str, tf.RaggedTensor]:
    """What `ragged_terms` makes of texts of these words."""
    found = {"words": texts, "characters": [sorted(set("".join(words))) for words in texts]}
    features = {}
    for kind, tokens in vocabularies.items():
        numbers = [[1 + tokens.index(term) for term in terms if term in tokens] for terms in found[kind]]
        weights = [[max(1, len(row)) ** -0.5] * len(row) for row in numbers]
        features[kind] = tf.ragged.constant(numbers, dtype=tf.int32)
        features[WEIGHTS_OF[kind]] = tf.ragged.constant(weights, dtype=tf.float32)
    return features


def with_random_weights(model: keras.Model, seed: int) -> keras.Model:
    source = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        weight.assign(source.normal(size=weight.shape))
    return model


def ngrams(seed: int, vocabularies: Mapping[str, Sequence[str]], **options) -> keras.Model:
    train = TransformedSplit([""] * 4, numbered(TEXTS, vocabularies), LABELS, left_out=0, fingerprint="")
    sizes = {kind: len(tokens) for kind, tokens in vocabularies.items()}
    chosen = NgramOptions(**{"embedding_width": 3, "hidden_units": 4, **options})
    return with_random_weights(ngram_classifier(train, sizes, 2, chosen).model, seed)


def answers(model: keras.Model, vocabularies: Mapping[str, Sequence[str]]) -> np.ndarray:
    asked = [*TEXTS, ["good", "bad", "unheard"], []]
    return model.predict(dense_batch(numbered(asked, vocabularies)), verbose=0)


def rows(model: keras.Model, layer: str) -> np.ndarray:
    return model.get_layer(layer).get_weights()[0]


def test_an_ngram_model_answers_as_the_served_one_wherever_its_terms_moved(tmp_path):
    served, started = ngrams(1, KNOWN), ngrams(2, MOVED)
    assert np.abs(answers(started, MOVED) - answers(served, KNOWN)).max() > 0.1
    write_warm_start(str(tmp_path), served, meaning(KNOWN))
    said = start_warm(started, meaning(MOVED), str(tmp_path))
    np.testing.assert_allclose(answers(started, MOVED), answers(served, KNOWN), atol=1e-5)
    assert said == "warm: from the served model, with 5 of 5 words and 10 of 10 characters"


def test_new_terms_begin_as_in_any_training_and_known_ones_with_what_was_learned(tmp_path):
    served, started = ngrams(1, KNOWN), ngrams(2, GROWN)
    untrained = {layer: rows(started, layer) for layer in LAYERS}
    write_warm_start(str(tmp_path), served, meaning(KNOWN))
    said = start_warm(started, meaning(GROWN), str(tmp_path))
    for layer in LAYERS:
        learned, after = rows(served, layer), rows(started, layer)
        np.testing.assert_array_equal(after[1], untrained[layer][1])
        # GROWN is a new term, then KNOWN from its end; row 0 is of no term.
        np.testing.assert_array_equal(after[2:], learned[:0:-1])
        np.testing.assert_array_equal(after[0], learned[0])
    assert said == "warm: from the served model, with 5 of 6 words and 10 of 11 characters"


def test_the_ratios_are_those_of_the_new_data(tmp_path):
    served, started = ngrams(1, KNOWN), ngrams(2, GROWN)
    write_warm_start(str(tmp_path), served, meaning(KNOWN))
    assert start_warm(started, meaning(GROWN), str(tmp_path)).startswith("warm")
    expected = log_count_ratios(numbered(TEXTS, GROWN)["words"], LABELS, size=6, classes=2)
    np.testing.assert_array_equal(rows(started, "words_ratios"), expected)


def random_encoder(seed: int, tokens: Sequence[str]) -> keras.Model:
    options = EncoderOptions(model="encoder", embedding_width=3, filters=4, filter_widths=(1, 2))
    return with_random_weights(encoder_classifier(len(tokens), 2, options).model, seed)


def test_an_encoder_answers_as_the_served_one_to_known_and_unknown_tokens(tmp_path):
    def encoded(model: keras.Model, tokens: Sequence[str]) -> np.ndarray:
        asked = [["good", "film"], ["unheard", "bad"], ["unheard", "unheard"], ["", ""]]
        special = {"": 0, "unheard": UNKNOWN_TOKEN}
        numbers = [[special[word] if word in special else 2 + tokens.index(word) for word in text] for text in asked]
        return model.predict({"tokens": np.array(numbers, np.int32)}, verbose=0)

    known, grown = KNOWN["words"], GROWN["words"]
    served, started = random_encoder(1, known), random_encoder(2, grown)
    write_warm_start(str(tmp_path), served, meaning({"tokens": known}))
    said = start_warm(started, meaning({"tokens": grown}), str(tmp_path))
    np.testing.assert_allclose(encoded(started, grown), encoded(served, known), atol=1e-5)
    assert said == "warm: from the served model, with 5 of 6 tokens"


@pytest.mark.parametrize(
    ("vocabularies", "options"),
    [(KNOWN, {"embedding_width": 5}), (KNOWN, {"hidden_units": 5}), ({"words": KNOWN["words"]}, {})],
)
def test_an_ngram_model_of_another_build_starts_cold(tmp_path, vocabularies, options):
    write_warm_start(str(tmp_path), ngrams(1, KNOWN), meaning(KNOWN))
    started = ngrams(2, vocabularies, **options)
    before = started.get_weights()
    said = start_warm(started, meaning(vocabularies), str(tmp_path))
    assert said == "cold: other layers than the served model's"
    for weight, untouched in zip(started.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, untouched)


def test_an_export_that_names_no_vocabularies_starts_nothing_warm(tmp_path):
    write_warm_start(str(tmp_path), ngrams(1, KNOWN), meaning({}))
    assert start_warm(ngrams(2, KNOWN), meaning(KNOWN), str(tmp_path)) == "cold: other layers than the served model's"
