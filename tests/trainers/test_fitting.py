"""Fitting: the optimizer, batches, rows on disk, a training that is killed or begins from the served model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from serving.reference_predictions import example_id
from trainers import blending, row_store
from trainers.blending import cross_entropies
from trainers.fitting import FinishedParts, FusedAdam, steps_per_execution
from trainers.row_store import RowMemory, RowStore, Stream
from trainers.splits import (
    TransformedBatch,
    TransformedSplit,
    joined_split,
    shuffled_batches,
    training_weights,
    transformed_batches,
)
from trainers.tabular.members import Table, train_members
from trainers.tabular.models import build_model, keras_classifier
from trainers.tabular.options import TabularTrainerOptions
from trainers.tabular.train import fit_stream
from trainers.warm_start import MeaningOfWeights, start_warm, write_warm_start

ADAM_STEPS = 6


def trained(optimizer: keras.optimizers.Optimizer) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights, and the optimizer's own variables, after some steps from the same beginning."""
    start = keras.initializers.GlorotUniform(seed=1)
    model = keras.Sequential(
        [
            keras.Input([5]),
            keras.layers.Dense(4, activation="tanh", kernel_initializer=start),
            keras.layers.Dense(3, activation="softmax", kernel_initializer=start),
        ]
    )
    model.compile(optimizer, keras.losses.CategoricalCrossentropy(), jit_compile=False)
    chance = np.random.default_rng(2)
    for _ in range(ADAM_STEPS):
        model.train_on_batch(chance.normal(size=[8, 5]), np.eye(3)[chance.integers(0, 3, 8)])
    return model.get_weights(), [variable.numpy() for variable in optimizer.variables]


def test_each_step_is_that_of_keras_with_a_step_size_that_decays():
    options = {
        "learning_rate": keras.optimizers.schedules.CosineDecay(0.05, ADAM_STEPS),
        "beta_1": 0.8,
        "epsilon": 1e-4,
    }
    weights, state = trained(FusedAdam(**options))
    expected_weights, expected_state = trained(keras.optimizers.Adam(**options))
    for ours, theirs in zip([*weights, *state], [*expected_weights, *expected_state], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert state[0] == ADAM_STEPS


@pytest.mark.parametrize(
    ("steps", "at_once"), [(1, 1), (8, 8), (32, 32), (33, 17), (64, 32), (81, 27), (83, 28), (1000, 32)]
)
def test_an_epoch_is_divided_into_executions_of_one_size(steps, at_once):
    assert steps_per_execution(steps) == at_once


def test_an_epoch_has_hardly_more_steps_than_it_needs():
    for steps in range(1, 2000):
        executions = -(-steps // steps_per_execution(steps))
        assert 0 <= executions * steps_per_execution(steps) - steps < executions


ROWS, BATCH = 1000, 32
STEPS = -(-ROWS // BATCH)


def ragged_rows() -> tf.RaggedTensor:
    """Row n is n + 1, n times or so."""
    lengths = np.random.default_rng(0).integers(1, 200, ROWS)
    return tf.RaggedTensor.from_row_lengths(np.repeat(np.arange(ROWS) + 1, lengths), lengths)


def test_each_pass_has_every_row_once_in_an_order_of_its_own():
    features = {"number": np.arange(ROWS)}
    batches = shuffled_batches((features, np.arange(ROWS)), BATCH, 0)

    passes = [[], []]
    for number, (columns, labels) in enumerate(batches.take(2 * STEPS)):
        assert columns["number"].numpy().tolist() == labels.numpy().tolist()
        passes[number // STEPS].append(labels.numpy())
    first, second = (np.concatenate(batches) for batches in passes)
    assert sorted(first) == sorted(second) == list(range(ROWS))
    assert not np.array_equal(first, second)


def test_ragged_rows_come_once_with_their_labels_and_nearly_without_filling():
    terms = ragged_rows()
    batches = list(shuffled_batches(({"terms": terms}, np.arange(ROWS)), BATCH, 0).take(STEPS))

    assert sorted(np.concatenate([labels.numpy() for _, labels in batches])) == list(range(ROWS))
    for columns, labels in batches:
        for row, label in zip(columns["terms"].numpy(), labels.numpy(), strict=True):
            assert row[row > 0].tolist() == terms[label].numpy().tolist()
    given = sum(columns["terms"].shape[0] * columns["terms"].shape[1] for columns, _ in batches)
    assert given < 1.15 * terms.flat_values.shape[0]  # twice as much in any order


def test_batches_of_short_and_of_long_rows_are_mixed():
    batches = shuffled_batches(({"terms": ragged_rows()}, np.arange(ROWS)), BATCH, 0).take(STEPS - 1)
    widths = [columns["terms"].shape[1] for columns, _ in batches]
    assert 5 < np.sum(np.diff(widths) < 0) < STEPS - 5


class Killed(BaseException):
    """The end of a process, as far as a test can have it within its own."""


@contextmanager
def killed_after(kept: str) -> Iterator[None]:
    """Ends what is done within when this part of a training has come under its name."""
    rename = Path.rename

    def rename_and_end(self: Path, target: Path) -> Path:
        renamed = rename(self, target)
        if Path(target).name == kept:
            raise Killed
        return renamed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "rename", rename_and_end)
        yield


def transformed(rows: int = 330) -> Iterator[TransformedBatch]:
    """Rows whose label follows from a category, or else from two numbers; each eleventh has none that is usable."""
    chance = np.random.default_rng(0)
    for first in range(0, rows, 110):
        numbers = chance.normal(size=[110, 2]).astype(np.float32)
        categories = chance.integers(-1, 2, size=[110, 1])
        labels = np.where(categories[:, 0] >= 0, categories[:, 0], numbers[:, 0] * numbers[:, 1] > 0).astype(np.int64)
        labels[::11] = -1
        usable = labels >= 0
        lists = tf.RaggedTensor.from_row_lengths(
            chance.integers(1, 3, size=600).astype(np.int32)[: (lengths := chance.integers(0, 5, 110)).sum()], lengths
        )
        features = {"numbers": numbers[usable], "categories": categories[usable]}
        yield TransformedBatch(
            ids=[example_id(f"{row}".encode()) for row in range(first, first + 110)],
            features=features | {"list0": tf.ragged.boolean_mask(lists, usable)},
            labels=labels,
            weights=chance.integers(1, 4, size=110).astype(np.float64),
        )


@pytest.fixture(scope="module")
def in_memory() -> TransformedSplit:
    return joined_split(list(transformed()), "weight")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> RowStore:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_store, "transformed_batches", lambda *_, **__: transformed())
        found = RowMemory(1, tmp_path_factory.mktemp("store"), 1).read("train", [], None, dict, "weight")
    assert isinstance(found, RowStore)
    return found


def as_rows(split: TransformedSplit) -> list[list]:
    """Each row's label, weight and features."""
    columns = {
        name: column.to_list() if isinstance(column, tf.RaggedTensor) else column.tolist()
        for name, column in split.features.items()
    }
    return [list(row) for row in zip(split.labels.tolist(), split.weights.tolist(), *columns.values(), strict=True)]


class _LateAtFirst:
    """A graph that takes the longer, the earlier the rows come."""

    raw_feature_spec = {"x": tf.io.FixedLenFeature([1], tf.int64), "wait": tf.io.FixedLenFeature([], tf.float32)}

    def __call__(self, features):
        waited = tf.py_function(lambda wait: time.sleep(float(wait[0])) or wait, [features["wait"]], tf.float32)
        with tf.control_dependencies([waited]):
            return {"x": tf.identity(features["x"]), "label": features["x"][:, 0] % 3 - 1}


def test_rows_keep_their_order_though_several_batches_are_transformed_at_once(tmp_path):
    records = [
        tf.train.Example(
            features=tf.train.Features(
                feature={
                    "x": tf.train.Feature(int64_list=tf.train.Int64List(value=[row])),
                    "wait": tf.train.Feature(float_list=tf.train.FloatList(value=[max(0.0, 0.3 - row / 100)])),
                }
            )
        ).SerializeToString()
        for row in range(95)
    ]
    file = str(tmp_path / "rows.gz")
    with tf.io.TFRecordWriter(file, "GZIP") as writer:
        for record in records:
            writer.write(record)
    batches = list(transformed_batches([file], _LateAtFirst(), batch_size=10))
    assert [len(batch.ids) for batch in batches] == [10] * 9 + [5]
    split = joined_split(batches)
    usable = [row for row in range(95) if row % 3]
    assert split.features["x"][:, 0].tolist() == usable and split.left_out == 32
    assert split.labels.tolist() == [row % 3 - 1 for row in usable]
    assert split.ids == [example_id(records[row]) for row in usable]


def test_rows_on_disk_are_those_in_memory(store, in_memory):
    read = store.read(0, store.rows)
    assert store.rows == 300 and store.left_out == in_memory.left_out == 30
    assert read.ids == in_memory.ids and store.fingerprint == in_memory.fingerprint
    assert as_rows(read) == as_rows(in_memory)
    assert as_rows(store.read(17, 19)) == as_rows(in_memory)[17:19]
    chosen = store.chosen(np.array([3, 200, 201]))
    assert chosen.ids == [in_memory.ids[row] for row in (3, 200, 201)]
    assert as_rows(chosen) == [as_rows(in_memory)[row] for row in (3, 200, 201)]
    for balanced in (False, True):
        np.testing.assert_allclose(
            store.training_weights(read, balanced), training_weights(in_memory, 2, balanced), rtol=1e-12
        )


def test_a_split_that_fits_is_not_written(monkeypatch, in_memory, tmp_path):
    monkeypatch.setattr(row_store, "transformed_batches", lambda *_, **__: transformed())
    found = RowMemory(10**6, tmp_path / "rows", 1).read("train", [], None, dict, "weight")
    assert isinstance(found, TransformedSplit) and as_rows(found) == as_rows(in_memory)
    assert not (tmp_path / "rows").exists()


def test_a_pass_over_rows_on_disk_has_each_row_once_in_an_order_of_its_own(store, in_memory, monkeypatch):
    monkeypatch.setattr(row_store, "_BLOCK_BYTES", 16 * store.row_bytes)
    monkeypatch.setattr(row_store, "_PART_BYTES", 64 * store.row_bytes)
    without = np.array([0, 5, 299])
    passes = [list(store.shuffled(10, 0, number, without, by_length=True)) for number in (0, 1, 0)]
    orders = [np.concatenate([part.numbers for part in parts]).tolist() for parts in passes]
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == [row for row in range(300) if row not in without] == sorted(orders[1])
    assert all(len(part.numbers) % 10 == 0 for part in passes[0][:-1]) and len(passes[0]) > 3
    whole = as_rows(in_memory)
    for part in passes[0]:
        assert as_rows(part.split) == [whole[row] for row in part.numbers]
    # Blocks of 16 rows would stand side by side else.
    assert np.abs(np.diff(orders[0])).mean() > 16
    batches = store.batches(10, 0, 0, without, by_length=True).take(30).as_numpy_iterator()
    labels = np.concatenate([labels for _, labels, _ in batches])
    assert labels.tolist() == in_memory.labels[orders[0]].tolist()


def test_rows_are_drawn_equally_likely(store):
    drawn = [store.draw(100, seed) for seed in range(200)]
    assert all(len(np.unique(rows)) == 100 and (np.diff(rows) > 0).all() for rows in drawn)
    counts = np.bincount(np.concatenate(drawn), minlength=300)
    # Binomial: 200 draws of a third.
    assert counts.std() < 2 * (200 * 2 / 9) ** 0.5
    assert store.draw(1000, 0).tolist() == list(range(300))


@pytest.mark.parametrize("kind", ["blend", "network"])
def test_a_training_from_disk_that_is_killed_goes_on_to_the_same_model(kind, store, in_memory, tmp_path, monkeypatch):
    monkeypatch.setattr(blending, "_ROWS_OF_ALL_FOLDS", 100)
    sample = store.draw(200, seed=0)
    given = {"hidden_units": (8,), "epochs": 8, "batch_size": 32, "trees": {"count": 30, "forest": 0}}
    options = TabularTrainerOptions(model=kind, class_weights="balanced", early_stopping_patience=3, **given)

    def answers(name: str) -> np.ndarray:
        stream = Stream(store, sample, FinishedParts(tmp_path / name))
        if kind == "blend":
            return train_members(Table(store.chosen(sample), 2, 2, {}, options, stream)).predict(in_memory)
        keras.utils.set_random_seed(0)
        model = build_model(in_memory.features, 2, 2, options)
        fit_stream(model, stream, options)
        return keras_classifier(model).predict(in_memory)

    whole = answers("whole")
    with killed_after("networks" if kind == "blend" else "2"):
        answers("killed")
    np.testing.assert_allclose(answers("killed"), whole, atol=1e-5)
    assert cross_entropies(whole, in_memory.labels).mean() < 0.6


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
