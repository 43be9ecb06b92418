"""Training of tables: what the model learns and how it takes unknown values."""

from __future__ import annotations

from itertools import chain

import keras
import numpy as np

from trainers.splits import TransformedSplit
from trainers.tabular.models import build_model
from trainers.tabular.options import TabularTrainerOptions
from trainers.tabular.train import fit, shuffled_batches


def split(rows: int = 400, seed: int = 0) -> TransformedSplit:
    """The label follows the category alone where it is known, and the number otherwise."""
    source = np.random.default_rng(seed)
    numbers = source.normal(size=[rows, 1]).astype(np.float32)
    categories = source.integers(-1, 2, size=[rows, 1])
    labels = np.where(categories[:, 0] >= 0, categories[:, 0], numbers[:, 0] > 0).astype(np.int64)
    return TransformedSplit(
        ids=[str(row) for row in range(rows)],
        features={"numbers": np.concatenate([numbers, np.zeros_like(numbers)], axis=1), "categories": categories},
        labels=labels,
        left_out=0,
        fingerprint="",
    )


def trained(options: TabularTrainerOptions) -> keras.Model:
    keras.utils.set_random_seed(options.seed)
    model = build_model(split().features, vocabulary_size=2, classes=2, options=options)
    fit(model, split(), options)
    return model


def accuracy(model: keras.Model, test: TransformedSplit) -> float:
    return float((model.predict(test.features, verbose=0).argmax(axis=1) == test.labels).mean())


def test_the_linear_model_learns_categories():
    model = trained(TabularTrainerOptions(hidden_units=(), epochs=60, learning_rate=0.1))
    assert accuracy(model, split(seed=1)) > 0.85


def test_the_network_learns_what_a_linear_model_cannot():
    model = trained(TabularTrainerOptions(hidden_units=(32,), epochs=60, learning_rate=0.03, dropout=0.0))
    assert accuracy(model, split(seed=1)) > 0.95


def test_early_stopping_ends_before_the_last_epoch_and_the_model_is_good():
    options = TabularTrainerOptions(epochs=500, early_stopping_patience=3, learning_rate=0.03)
    model = build_model(split().features, vocabulary_size=2, classes=2, options=options)
    fit(model, split(), options)
    assert model.optimizer.iterations.numpy() < 500 * 2
    assert accuracy(model, split(seed=1)) > 0.9


def test_an_unknown_category_that_training_never_met_adds_nothing():
    known = split()
    rows = known.features["categories"][:, 0] >= 0
    only_known = TransformedSplit(
        ids=[], features={name: values[rows] for name, values in known.features.items()}, labels=known.labels[rows],
        left_out=0, fingerprint="",
    )  # fmt: skip
    options = TabularTrainerOptions(hidden_units=(), epochs=30, learning_rate=0.1)
    model = build_model(only_known.features, vocabulary_size=2, classes=2, options=options)
    fit(model, only_known, options)
    bias_and_number = model.predict(
        {"numbers": np.zeros([1, 2], np.float32), "categories": np.array([[-1]])}, verbose=0
    )
    (dense,) = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    expected = np.exp(dense.bias.numpy()) / np.exp(dense.bias.numpy()).sum()
    np.testing.assert_allclose(bias_and_number[0], expected, atol=1e-6)


def test_the_same_seed_gives_the_same_model():
    options = TabularTrainerOptions(epochs=3)
    first, second = (trained(options).predict(split().features, verbose=0) for _ in range(2))
    # Threads may add in another order.
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_each_pass_has_every_row_once_in_a_new_order():
    rows = {"x": np.arange(10, dtype=np.float32)}, np.arange(10)
    batches = shuffled_batches(rows, batch_size=4, seed=0).take(6).as_numpy_iterator()
    seen = [features["x"].tolist() for features, labels in batches if features["x"].tolist() == labels.tolist()]
    assert [len(batch) for batch in seen] == [4, 4, 2, 4, 4, 2]
    first, second = list(chain(*seen[:3])), list(chain(*seen[3:]))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
