"""A training that begins with the weights of the served model."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from trainers.tabular.models import build_model
from trainers.tabular.options import TabularTrainerOptions
from trainers.warm_start import MeaningOfWeights, start_warm, write_warm_start

CATEGORIES = ["city=Oslo", "city=Rome"]


def meaning(categories=CATEGORIES, **changed) -> MeaningOfWeights:
    fields = {"columns": {"age": "int64"}, "preprocessing": {"crosses": []}, "labels": ["no", "yes"]}
    return MeaningOfWeights(**fields | changed, vocabularies={"categories": categories})


def model(seed: int, categories=CATEGORIES, hidden_units=(4,)) -> keras.Model:
    """Untrained; its embeddings are random too, which the linear part's are not by themselves."""
    keras.utils.set_random_seed(seed)
    features = {"numbers": np.zeros([1, 2], np.float32), "categories": np.zeros([1, 1], np.int64)}
    built = build_model(features, len(categories), 2, TabularTrainerOptions(hidden_units=hidden_units))
    for layer in built.layers:
        if isinstance(layer, keras.layers.Embedding):
            layer.set_weights([np.random.default_rng(seed).normal(size=layer.weights[0].shape)])
    return built


def answers(of: keras.Model, rows: dict[str, int]) -> np.ndarray:
    numbers = np.array([[0.5, 0.0]] * len(rows), np.float32)
    return of.predict({"numbers": numbers, "categories": np.array([*rows.values()])[:, None]}, verbose=0)


def test_a_warm_start_answers_as_the_served_model_does(tmp_path):
    served, started = model(seed=1), model(seed=2)
    write_warm_start(str(tmp_path), served, meaning())
    said = start_warm(started, meaning(), str(tmp_path))
    rows = {"Oslo": 0, "Rome": 1, "unknown": -1}
    np.testing.assert_allclose(answers(started, rows), answers(served, rows), atol=1e-6)
    assert said == "warm: from the served model, with 2 of 2 categories"


def test_categories_keep_their_weights_wherever_they_move_in_the_vocabulary(tmp_path):
    served, grown = model(seed=1), ["city=Lima", "city=Rome", "city=Oslo"]
    started = model(seed=2, categories=grown)
    untrained = [layer.get_weights()[0][1] for layer in started.layers if isinstance(layer, keras.layers.Embedding)]
    write_warm_start(str(tmp_path), served, meaning())
    said = start_warm(started, meaning(grown), str(tmp_path))
    of_started, of_served = answers(started, {"Oslo": 2, "Rome": 1}), answers(served, {"Oslo": 0, "Rome": 1})
    np.testing.assert_allclose(of_started, of_served, atol=1e-6)
    lima = [layer.get_weights()[0][1] for layer in started.layers if isinstance(layer, keras.layers.Embedding)]
    np.testing.assert_array_equal(np.concatenate(lima), np.concatenate(untrained))
    assert said == "warm: from the served model, with 2 of 3 categories"


@pytest.mark.parametrize(
    ("changed", "hidden_units", "said"),
    [
        ({"labels": ["maybe", "no"]}, (4,), "cold: other labels than the served model's"),
        ({"columns": {"age": "float32"}}, (4,), "cold: other columns than the served model's"),
        ({"preprocessing": {"crosses": [["a", "b"]]}}, (4,), "cold: other preprocessing than the served model's"),
        ({"embedding": "nnlm"}, (4,), "cold: other embedding than the served model's"),
        ({}, (8,), "cold: other layers than the served model's"),
        ({}, (4, 4), "cold: other layers than the served model's"),
    ],
)
def test_weights_that_mean_something_else_are_not_taken_over(tmp_path, changed, hidden_units, said):
    write_warm_start(str(tmp_path), model(seed=1), meaning())
    started = model(seed=2, hidden_units=hidden_units)
    before = [weight.numpy() for weight in started.weights]
    assert start_warm(started, meaning(**changed), str(tmp_path)) == said
    for weight, untouched in zip(started.weights, before, strict=True):
        np.testing.assert_array_equal(weight, untouched)


def test_without_a_served_model_a_training_starts_cold(tmp_path):
    assert start_warm(model(seed=1), meaning(), str(tmp_path / "nothing")).startswith("cold: the served model, if")
