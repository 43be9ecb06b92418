"""A training of texts that begins with the weights of the served model: rows go with their terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainers.splits import TransformedSplit, dense_batch
from trainers.text.models import encoder_classifier, log_count_ratios, ngram_classifier
from trainers.text.options import EncoderOptions, NgramOptions
from trainers.warm_start import MeaningOfWeights, leave_for_warm_start, start_warm
from transform.text import UNKNOWN_TOKEN, WEIGHTS_OF

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
    leave_for_warm_start(str(tmp_path), served, meaning(KNOWN))
    said = start_warm(started, meaning(MOVED), str(tmp_path))
    np.testing.assert_allclose(answers(started, MOVED), answers(served, KNOWN), atol=1e-5)
    assert said == "warm: from the served model, with 5 of 5 words and 10 of 10 characters"


def test_new_terms_begin_as_in_any_training_and_known_ones_with_what_was_learned(tmp_path):
    served, started = ngrams(1, KNOWN), ngrams(2, GROWN)
    untrained = {layer: rows(started, layer) for layer in LAYERS}
    leave_for_warm_start(str(tmp_path), served, meaning(KNOWN))
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
    leave_for_warm_start(str(tmp_path), served, meaning(KNOWN))
    assert start_warm(started, meaning(GROWN), str(tmp_path)).startswith("warm")
    expected = log_count_ratios(numbered(TEXTS, GROWN)["words"], LABELS, size=6, classes=2)
    np.testing.assert_array_equal(rows(started, "words_ratios"), expected)


def encoder(seed: int, tokens: Sequence[str]) -> keras.Model:
    options = EncoderOptions(model="encoder", embedding_width=3, filters=4, filter_widths=(1, 2))
    return with_random_weights(encoder_classifier(len(tokens), 2, options).model, seed)


def test_an_encoder_answers_as_the_served_one_to_known_and_unknown_tokens(tmp_path):
    def encoded(model: keras.Model, tokens: Sequence[str]) -> np.ndarray:
        asked = [["good", "film"], ["unheard", "bad"], ["unheard", "unheard"], ["", ""]]
        special = {"": 0, "unheard": UNKNOWN_TOKEN}
        numbers = [[special[word] if word in special else 2 + tokens.index(word) for word in text] for text in asked]
        return model.predict({"tokens": np.array(numbers, np.int32)}, verbose=0)

    known, grown = KNOWN["words"], GROWN["words"]
    served, started = encoder(1, known), encoder(2, grown)
    leave_for_warm_start(str(tmp_path), served, meaning({"tokens": known}))
    said = start_warm(started, meaning({"tokens": grown}), str(tmp_path))
    np.testing.assert_allclose(encoded(started, grown), encoded(served, known), atol=1e-5)
    assert said == "warm: from the served model, with 5 of 6 tokens"


@pytest.mark.parametrize(
    ("vocabularies", "options"),
    [(KNOWN, {"embedding_width": 5}), (KNOWN, {"hidden_units": 5}), ({"words": KNOWN["words"]}, {})],
)
def test_an_ngram_model_of_another_build_starts_cold(tmp_path, vocabularies, options):
    leave_for_warm_start(str(tmp_path), ngrams(1, KNOWN), meaning(KNOWN))
    started = ngrams(2, vocabularies, **options)
    before = started.get_weights()
    said = start_warm(started, meaning(vocabularies), str(tmp_path))
    assert said == "cold: other layers than the served model's"
    for weight, untouched in zip(started.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, untouched)


def test_an_export_that_names_no_vocabularies_starts_nothing_warm(tmp_path):
    leave_for_warm_start(str(tmp_path), ngrams(1, KNOWN), meaning({}))
    assert start_warm(ngrams(2, KNOWN), meaning(KNOWN), str(tmp_path)) == "cold: other layers than the served model's"
