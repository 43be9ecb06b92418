"""Training of texts: what each model learns, and how it takes texts that it knows nothing of."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from trainers.splits import TransformedSplit, dense_batch
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
