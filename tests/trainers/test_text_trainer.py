"""Training of texts: what the model learns, and how it takes texts that it knows nothing of."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from trainers.text import build_model, fit, weighted_sum, without_padding
from trainers.text_options import TextTrainerOptions
from trainers.transformed_split import TransformedSplit

VOCABULARY = 20
LENGTH = 8


def split(rows: int = 600, seed: int = 0, signs: bool = True) -> TransformedSplit:
    """Texts of four terms; the label says whether term 1 or term 2 is among them, or at random where not `signs`."""
    source = np.random.default_rng(seed)
    labels = source.integers(0, 2, size=rows)
    terms = np.zeros([rows, LENGTH], np.int64)
    terms[:, :4] = source.integers(3, VOCABULARY + 1, size=[rows, 4])
    if signs:
        terms[:, 1] = 1 + labels
    return TransformedSplit(
        ids=[str(row) for row in range(rows)],
        features={"terms": terms, "weights": np.where(terms > 0, 0.5, 0).astype(np.float32)},
        labels=labels,
        left_out=0,
        fingerprint="",
    )


def trained(train: TransformedSplit, **options) -> keras.Model:
    chosen = TextTrainerOptions(**{"epochs": 10, "learning_rate": 0.01, "embedding_width": 8, **options})
    keras.utils.set_random_seed(chosen.seed)
    model = build_model(VOCABULARY, classes=2, options=chosen)
    fit(model, train, chosen)
    return model


def predict(model: keras.Model, terms: list[list[int]]) -> np.ndarray:
    rows = np.array(terms)
    return model.predict({"terms": rows, "weights": np.where(rows > 0, 0.5, 0).astype(np.float32)}, verbose=0)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return trained(split())


def test_the_model_learns_which_terms_tell_the_label(model):
    test = split(seed=1)
    assert (model.predict(test.features, verbose=0).argmax(axis=1) == test.labels).mean() > 0.97


def test_terms_and_padding_may_stand_in_any_order_and_number(model):
    short = predict(model, [[1, 5, 6]])
    np.testing.assert_allclose(predict(model, [[6, 0, 1, 0, 0, 5]]), short, atol=1e-6)


def test_a_text_without_terms_leans_to_the_frequent_class():
    train = split(signs=False)
    train.labels[:] = np.arange(600) % 4 == 0
    model = trained(train, epochs=20, l2=0.1)
    (frequent, rare), again = predict(model, [[0, 0, 0], [0, 0, 0]])
    assert 0.55 < frequent < 0.85
    assert frequent + rare == pytest.approx(1)
    np.testing.assert_array_equal(again, [frequent, rare])


def test_the_same_seed_gives_the_same_model(model):
    again = trained(split())
    asked = [[1, 5, 6], [2, 7, 8]]
    np.testing.assert_allclose(predict(again, asked), predict(model, asked), atol=1e-5)


def test_more_than_two_classes_are_learned():
    train = split()
    train.features["terms"][:, 1] = 1 + np.arange(600) % 3
    train.labels[:] = np.arange(600) % 3
    options = TextTrainerOptions(epochs=15, learning_rate=0.01)
    model = build_model(VOCABULARY, classes=3, options=options)
    fit(model, train, options)
    assert predict(model, [[1], [2], [3]]).argmax(axis=1).tolist() == [0, 1, 2]


def test_a_weighted_sum_is_over_the_terms_of_a_text():
    vectors = np.array([[[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]]], np.float32)
    weights = np.array([[1.0, 0.5, 0.0]], np.float32)
    np.testing.assert_allclose(weighted_sum(vectors, weights), [[6.0, 12.0]])


def test_padding_is_cut_at_the_longest_text():
    features = {"terms": np.array([[3, 1, 0, 0], [2, 0, 0, 0]]), "weights": np.ones([2, 4], np.float32)}
    cut = without_padding(features)
    assert cut["terms"].tolist() == [[3, 1], [2, 0]]
    assert cut["weights"].shape == (2, 2)


def test_texts_without_any_known_term_can_still_be_trained_on():
    empty = {"terms": np.zeros([2, 4], np.int64), "weights": np.zeros([2, 4], np.float32)}
    assert without_padding(empty)["terms"].shape == (2, 1)
