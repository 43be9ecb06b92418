"""Members of a blend: a linear model, boosted trees, a random forest, a network; tried on folds, and refitted."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf
from scipy.optimize import minimize

from serving.signatures.common import Features
from trainers.blending import Blend, choose_blend, cross_entropies, stratified_folds
from trainers.fitting import FinishedParts
from trainers.row_store import Stream
from trainers.splits import TransformedSplit, dense_batch, training_weights
from trainers.tabular.models import TERM_SCALE, Classifier, build_model, keras_classifier, model_inputs
from trainers.tabular.networks import train_networks
from trainers.tabular.options import TabularTrainerOptions
from trainers.tabular.trees import (
    TreeInputs,
    TreeTable,
    growths_to_try,
    has_few_rows,
    load_trees,
    save_trees,
    train_boosted,
    train_random_forest,
    tree_answers,
    tree_count,
    tree_probabilities,
)
from trainers.tuning import SMALLEST_PROBABILITY
from transform.tabular import CATEGORIES, CATEGORY_VOCABULARY, HASHES, LIST, NUMBERS, TERMS, WEIGHTS

LINEAR, TREES, FOREST, NETWORK = "linear", "trees", "forest", "network"


@dataclass(frozen=True)
class Table:
    """What members are trained on.

    Attributes:
        split: all rows, or a sample of them.
        classes: how many labels there are.
        vocabulary_size: how many categories are known.
        sizes: what build_model takes.
        options: of the trainer.
        stream: all rows, where the split is a sample of them: networks learn from these.
    """

    split: TransformedSplit
    classes: int
    vocabulary_size: int
    sizes: Mapping[str, int]
    options: TabularTrainerOptions
    stream: Stream | None = None

    @property
    def labels(self) -> np.ndarray:
        return self.split.labels

    @cached_property
    def folds(self) -> list[np.ndarray]:
        """Rows that models which did not see them predict, see stratified_folds."""
        return stratified_folds(self.labels, self.options.seed)

    @property
    def held_out(self) -> np.ndarray:
        """The rows of all folds, one fold after the other."""
        return np.concatenate(self.folds)

    @cached_property
    def weights(self) -> np.ndarray | None:
        """float64 [n], 1 in the mean: how much each row counts; None where all count the same."""
        return training_weights(self.split, self.classes, self.options.class_weights == "balanced")

    def weights_of(self, rows: Any) -> np.ndarray | None:
        """Those of some rows."""
        return None if self.weights is None else self.weights[rows]

    def loss(self, probabilities: np.ndarray) -> float:
        """The cross entropy of what models say of `held_out`."""
        losses = cross_entropies(probabilities, self.labels[self.held_out])
        return float(np.average(losses, weights=self.weights_of(self.held_out)))

    @property
    def finished(self) -> FinishedParts:
        """What a training that was killed has done: of a stream with one fold, where each part takes long."""
        return self.stream.finished if self.stream is not None and self.keeps_models_of_fold else FinishedParts()

    @property
    def keeps_models_of_fold(self) -> bool:
        """Whether models trained without the only fold are kept: of many rows they gain next to nothing by more."""
        return len(self.folds) == 1

    def seen(self, fold: np.ndarray) -> np.ndarray:
        """The rows that are not in a fold."""
        return np.setdiff1d(np.arange(len(self.labels)), fold, assume_unique=True)


@dataclass(frozen=True)
class Tried:
    """A member on folds.

    Attributes:
        probabilities: float [held out rows, classes], of models that did not see them.
        chosen: what the folds decided, name -> value.
        refit: what is kept: trained on all rows, or as it is, see Table.keeps_models_of_fold.
    """

    probabilities: np.ndarray
    chosen: Mapping[str, Any]
    refit: Callable[[], Classifier]


class Deadline:
    """The end of the time that members have; none without a bound."""

    def __init__(self, minutes: float | None) -> None:
        self._end = time.monotonic() + 60 * minutes if minutes else None

    def leaves(self, seconds: float) -> bool:
        """Whether something that takes so long ends before."""
        return self._end is None or time.monotonic() + seconds < self._end


class OutOfTime(Exception):
    """A member's folds and its last training would not end before the deadline."""


FEWEST_ROWS, _FEWEST_OF_A_LABEL = 20, 5


def train_members(table: Table) -> Classifier:
    """Try the members that the options have, weigh them, and train those that are kept, see Tried.refit."""
    options = table.options
    counts = np.bincount(table.labels, minlength=table.classes)
    if len(table.labels) < FEWEST_ROWS or np.sort(counts)[-2] < _FEWEST_OF_A_LABEL:
        few = (
            f"{len(table.labels)} rows and {int(np.sort(counts)[-2])} of the second most frequent label are too few "
            f"for folds ({FEWEST_ROWS} and {_FEWEST_OF_A_LABEL}): a linear model was trained, and nothing was compared"
        )
        linear = _LinearModel(table).refit(_SMALL_PENALTY)
        return _blended({LINEAR: linear}, Blend({LINEAR: 1.0}, 1.0, {}), {"why": few})
    deadline = Deadline(options.minutes)
    tried: dict[str, Tried] = {}
    seconds: dict[str, float] = {}
    left_out: list[str] = []
    for name, attempt in _members(table).items():
        started = time.monotonic()
        # What is kept is trained once more on all rows.
        reserved = 0.0 if table.keeps_models_of_fold else sum(seconds.values()) / len(table.folds)
        try:
            if tried and not deadline.leaves(reserved):
                raise OutOfTime
            tried[name] = attempt(deadline if tried else Deadline(None), reserved)
        except OutOfTime:
            left_out.append(name)
            continue
        seconds[name] = time.monotonic() - started
    held_out = table.held_out
    blend = choose_blend(
        {name: one.probabilities for name, one in tried.items()},
        table.labels[held_out],
        options.model == "blend",
        table.weights_of(held_out),
    )
    kept = {}
    for name, weight in blend.weights.items():
        if weight:
            started = time.monotonic()
            kept[name] = tried[name].refit()
            seconds[name] += time.monotonic() - started
    out_of_fold = held_out, blend.probabilities({name: one.probabilities for name, one in tried.items()})
    return replace(_blended(kept, blend, _report(table, blend, tried, seconds, left_out)), out_of_fold=out_of_fold)


def _members(table: Table) -> dict[str, Callable[[Deadline, float], Tried]]:
    options = table.options
    trees = _Trees.of(table)
    if options.model == "trees" and trees is not None:
        return {TREES: trees.boosted}
    members: dict[str, Callable[[Deadline, float], Tried]] = {LINEAR: _LinearModel(table).tried}
    if trees is not None:
        members[TREES] = trees.boosted
        if trees.forest_size():
            members[FOREST] = trees.forest
    if options.hidden_units:
        members[NETWORK] = lambda deadline, reserved: _networks(table, deadline, reserved)
    return members


def _report(
    table: Table, blend: Blend, tried: Mapping[str, Tried], seconds: Mapping[str, float], left_out: Sequence[str]
) -> dict[str, Any]:
    figures = blend.report["members"]
    members = {
        name: {**figures[name], "chosen": dict(one.chosen), "seconds": round(seconds[name], 2)}
        for name, one in tried.items()
    }
    class_weights = {"class_weights": table.options.class_weights}
    return {**blend.report, **class_weights, "folds": len(table.folds), "members": members, "left_out": list(left_out)}


def _blended(members: Mapping[str, Classifier], blend: Blend, report: Mapping[str, Any]) -> Classifier:
    def predict(split: TransformedSplit) -> np.ndarray:
        return blend.probabilities({name: member.predict(split) for name, member in members.items()})

    def answer(features: Features) -> tf.Tensor:
        shares = [
            tf.cast(blend.weights[name], tf.float32) * member.answer(features) for name, member in members.items()
        ]
        mean = shares[0] if len(shares) == 1 else tf.add_n(shares)
        if blend.temperature == 1.0:
            return mean
        return tf.nn.softmax(tf.math.log(tf.maximum(mean, SMALLEST_PROBABILITY)) / blend.temperature)

    def save(folder: Path) -> None:
        folder.mkdir()
        for name, member in members.items():
            if member.save is not None:
                member.save(folder / name)

    models = [member.model for member in members.values()]
    return Classifier(
        predict,
        answer,
        model=models[0] if len(models) == 1 else None,
        curves=next((member.curves for member in members.values() if member.curves), {}),
        report=report,
        save=save,
    )


def _on_folds(
    table: Table,
    deadline: Deadline,
    reserved: float,
    predict: Callable[[np.ndarray, np.ndarray], Any],
    parallel: int = 1,
) -> list[Any]:
    """What `predict` gives for the rows seen and the rows held out of each fold, so many folds at a time.

    Raises:
        OutOfTime: after a fold it can be told that there is no time for the others and a last training.
    """
    found: list[Any] = []
    started = time.monotonic()
    with ThreadPoolExecutor(parallel) as threads:
        for answer in threads.map(lambda fold: predict(table.seen(fold), fold), table.folds):
            found.append(answer)
            each = (time.monotonic() - started) / len(found)
            to_come = len(table.folds) - len(found) + (not table.keeps_models_of_fold)
            if not deadline.leaves(each * to_come + reserved):
                threads.shutdown(cancel_futures=True)
                raise OutOfTime
    return found


# Of the mean loss, times the number of rows: half of 1 is what scikit-learn's logistic regression has by default.
_PENALTIES = (16.0, 4.0, 1.0, 0.25, 0.06)
_SMALL_PENALTY = 1.0
# With more rows the penalty hardly matters.
_ROWS_OF_ALL_PENALTIES = 5_000
_TERM_PENALTY = 0.2
_MOST_STEPS = 200


class _LinearModel:
    """A multinomial logistic regression by L-BFGS; its weights become those of the Keras model of the same build."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._matrix, self._penalties = _design(table)
        features = table.split.features
        # As models.build_model has it: where each row has its categories, they are biases enough.
        self._bias = NUMBERS in features or any(name.startswith((LIST, TERMS, HASHES)) for name in features)

    def tried(self, deadline: Deadline, reserved: float) -> Tried:
        rows = len(self._table.labels)
        penalties = _PENALTIES if rows <= _ROWS_OF_ALL_PENALTIES else (_SMALL_PENALTY,)
        fitted: list[np.ndarray] = []

        def predict(seen: np.ndarray, fold: np.ndarray) -> list[np.ndarray]:
            found, weights = [], None
            for penalty in penalties:
                weights = self._fit(seen, penalty / rows, weights)
                found.append(_softmax(self._logits(weights, fold)))
                fitted.append(weights)
            return found

        def refit() -> Classifier:
            if self._table.keeps_models_of_fold:
                return keras_classifier(self._as_keras(fitted[best]))
            return self.refit(penalties[best])

        by_fold = _on_folds(self._table, deadline, reserved, predict)
        by_penalty = [np.concatenate(parts) for parts in zip(*by_fold, strict=True)]
        best = int(np.argmin([self._table.loss(probabilities) for probabilities in by_penalty]))
        return Tried(by_penalty[best], {"l2": penalties[best] / rows}, refit)

    def refit(self, penalty: float) -> Classifier:
        rows = np.arange(len(self._table.labels))
        return keras_classifier(self._as_keras(self._fit(rows, penalty / len(rows), None)))

    def _fit(self, rows: np.ndarray, penalty: float, start: np.ndarray | None) -> np.ndarray:
        """float64 [columns + 1, classes], the biases last."""
        kept = self._table.finished.arrays(LINEAR, lambda: {"weights": self._fitted(rows, penalty, start)})
        return kept["weights"]

    def _fitted(self, rows: np.ndarray, penalty: float, start: np.ndarray | None) -> np.ndarray:
        matrix, labels, classes = self._matrix[rows], self._table.labels[rows], self._table.classes
        given = self._table.weights_of(rows)
        shares = (np.ones(len(rows)) if given is None else given) / len(rows)
        transposed = matrix.T.tocsr() if scipy.sparse.issparse(matrix) else matrix.T
        penalties = penalty * self._penalties[:, None]
        shape = matrix.shape[1] + 1, classes
        truth = np.zeros((len(rows), classes))
        truth[np.arange(len(rows)), labels] = 1

        def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
            weights = flat.reshape(shape)
            probabilities = _softmax(matrix @ weights[:-1] + weights[-1])
            rest = (probabilities - truth) * shares[:, None]
            gradient = np.empty(shape)
            gradient[:-1] = transposed @ rest + 2 * penalties * weights[:-1]
            gradient[-1] = rest.sum(axis=0) if self._bias else 0.0
            loss = cross_entropies(probabilities, labels) @ shares + (penalties * weights[:-1] ** 2).sum()
            return float(loss), gradient.reshape(-1)

        begin = np.zeros(shape) if start is None else start
        found = minimize(
            loss_and_gradient,
            begin.reshape(-1),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": _MOST_STEPS, "ftol": 1e-7, "gtol": 1e-5},
        )
        weights: np.ndarray = found.x.reshape(shape)
        return weights

    def _logits(self, weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
        result: np.ndarray = self._matrix[rows] @ weights[:-1] + weights[-1]
        return result

    def _as_keras(self, weights: np.ndarray) -> keras.Model:
        table = self._table
        options = table.options.model_copy(update={"hidden_units": ()})
        model = build_model(table.split.features, table.vocabulary_size, table.classes, options, table.sizes)
        first = 0
        for layer, width in _layer_widths(table):
            part = weights[first : first + width]
            first += width
            if layer != NUMBERS:
                scale = TERM_SCALE if layer.startswith(TERMS) else 1.0
                model.get_layer(f"{layer}_linear").set_weights([part / scale])
        for dense in (layer for layer in model.layers if isinstance(layer, keras.layers.Dense)):
            kernel = weights[: dense.kernel.shape[0]] if NUMBERS in table.split.features else np.eye(table.classes)
            dense.set_weights([kernel, weights[-1]])
        return model


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return result


def _layer_widths(table: Table) -> list[tuple[str, int]]:
    """The parts of the linear model in the order of the design's columns, and how many columns each has."""
    features = table.split.features
    widths = [(NUMBERS, features[NUMBERS].shape[1])] if NUMBERS in features else []
    if CATEGORIES in features or any(name.startswith(LIST) for name in features):
        widths.append((CATEGORY_VOCABULARY, table.vocabulary_size + 1))
    return widths + [(name, size + name.startswith(TERMS)) for name, size in table.sizes.items()]


# A matrix of so many numbers is multiplied faster as it is than by its few that are not zero.
_MOST_DENSE = 500_000


def _design(table: Table) -> tuple[Any, np.ndarray]:
    """The matrix [n, columns] that the linear model multiplies, and the factor of each column's penalty."""
    features, rows = table.split.features, len(table.labels)
    parts: list[Any] = []
    penalties: list[np.ndarray] = []
    for layer, width in _layer_widths(table):
        if layer == NUMBERS:
            part = scipy.sparse.csr_matrix(features[NUMBERS].astype(np.float64))
        elif layer == CATEGORY_VOCABULARY:
            part = scipy.sparse.csr_matrix((rows, width))
            if CATEGORIES in features:
                part = part + _counts(features[CATEGORIES] + 1, None, rows, width)
            for name in (name for name in features if name.startswith(LIST)):
                part = part + _counts(features[name], None, rows, width)
        elif layer == HASHES:
            part = _counts(features[HASHES], None, rows, width)
        else:
            part = _counts(features[layer], features[f"{layer}{WEIGHTS}"], rows, width)
        parts.append(part)
        penalties.append(np.full(width, _TERM_PENALTY if layer.startswith(TERMS) else 1.0))
    matrix = scipy.sparse.hstack(parts).tocsr()
    dense = matrix.shape[0] * matrix.shape[1] <= _MOST_DENSE
    return matrix.toarray() if dense else matrix, np.concatenate(penalties)


def _counts(numbers: Any, weights: Any, rows: int, width: int) -> scipy.sparse.csr_matrix:
    """[rows, width]: how often each row has each number, or the sum of its weights there."""
    if isinstance(numbers, tf.RaggedTensor):
        places, columns = numbers.value_rowids().numpy(), numbers.flat_values.numpy()
    else:
        places, columns = np.repeat(np.arange(rows), numbers.shape[1]), numbers.reshape(-1)
    values = np.ones(len(columns)) if weights is None else weights.flat_values.numpy().astype(np.float64)
    return scipy.sparse.csr_matrix((values, (places, columns)), shape=(rows, width))


# The number of trees that is best for a small fold flatters it; all folds are asked again by the mean of these numbers.
_ROWS_OF_FLATTERY = 10_000
_MOST_FOREST_ROWS = 20_000
# A forest of many rows has large trees: so many that there are not many more leaves than these.
_FOREST_ROWS_TIMES_TREES = 600_000


class _Trees:
    """Boosted trees and a random forest, on the same rows."""

    def __init__(self, table: Table, inputs: TreeInputs) -> None:
        self._table, self._inputs = table, inputs
        self._rows = self._tree_table(table.split)
        # Then each model is grown by one thread, see trees.py.
        self._parallel = (os.cpu_count() or 1) if has_few_rows(self._rows) else 1

    @classmethod
    def of(cls, table: Table) -> _Trees | None:
        """None where trees would see nothing."""
        trees = cls(table, TreeInputs.of(table.split.features, table.vocabulary_size, table.sizes))
        return trees if trees._rows.numbers.shape[1] + trees._rows.categories.shape[1] else None

    def _tree_table(self, split: TransformedSplit) -> TreeTable:
        return TreeTable.of(self._inputs, split.features, len(split.labels))

    def _labelled(self, rows: Any) -> tuple[TreeTable, np.ndarray, np.ndarray | None]:
        return self._rows.rows(rows), self._table.labels[rows], self._table.weights_of(rows)

    def boosted(self, deadline: Deadline, reserved: float) -> Tried:
        """The better of growths_to_try; one that there is no time for is not tried."""
        tried = []
        for growth in growths_to_try(self._rows):
            try:
                tried.append(self._grown(growth, deadline, reserved))
            except OutOfTime:
                if not tried:
                    raise
        return min(tried, key=lambda one: self._table.loss(one.probabilities))

    def _grown(self, growth: str, deadline: Deadline, reserved: float) -> Tried:
        table, options = self._table, self._table.options

        def grown(rows: Any, count: int | None, fold: np.ndarray | None = None) -> Any:
            held_out = None if fold is None else self._labelled(fold)
            return train_boosted(*self._labelled(rows), options.trees, options.seed, growth, count, held_out)

        kept: list[Any] = []

        def stopped(seen: np.ndarray, fold: np.ndarray) -> tuple[np.ndarray, int]:
            model = table.finished.result(TREES, lambda: grown(seen, None, fold), save_trees, load_trees)
            if table.keeps_models_of_fold:
                kept.append(model)
            return tree_probabilities(model, self._rows.rows(fold), table.classes), tree_count(model)

        def counted(seen: np.ndarray, fold: np.ndarray) -> np.ndarray:
            return tree_probabilities(grown(seen, count), self._rows.rows(fold), table.classes)

        found = _on_folds(table, deadline, reserved, stopped, self._parallel)
        count = max(1, round(float(np.mean([trees for _, trees in found]))))
        probabilities = [answers for answers, _ in found]
        if len(table.labels) <= _ROWS_OF_FLATTERY:
            probabilities = _on_folds(table, deadline, reserved, counted, self._parallel)

        def refit() -> Classifier:
            return self._classifier(kept[0] if kept else grown(slice(None), count))

        return Tried(np.concatenate(probabilities), {"trees": count, "growth": growth}, refit)

    def forest_size(self) -> int:
        """How many trees a random forest of these rows has; 0 for none."""
        rows = len(self._table.labels)
        if rows > _MOST_FOREST_ROWS:
            return 0
        return min(self._table.options.trees.forest, _FOREST_ROWS_TIMES_TREES // rows)

    def forest(self, deadline: Deadline, reserved: float) -> Tried:
        table, count, seed = self._table, self.forest_size(), self._table.options.seed

        def predict(seen: np.ndarray, fold: np.ndarray) -> np.ndarray:
            model = train_random_forest(*self._labelled(seen), count, seed)
            return tree_probabilities(model, self._rows.rows(fold), table.classes)

        def refit() -> Classifier:
            return self._classifier(train_random_forest(*self._labelled(slice(None)), count, seed))

        return Tried(
            np.concatenate(_on_folds(table, deadline, reserved, predict, self._parallel)), {"trees": count}, refit
        )

    def _classifier(self, model: Any) -> Classifier:
        answer = tree_answers(model, self._inputs, self._table.classes)
        return Classifier(
            predict=lambda split: tree_probabilities(model, self._tree_table(split), self._table.classes),
            answer=lambda features: answer(dense_batch(model_inputs(features))),
            save=lambda path: model.save(str(path)),
        )


# Of few rows, networks for the folds of so many draws: which rows a network sees matters most there.
_DRAWS_OF_FEW_ROWS, _FEW_ROWS = 3, 2_000


def _networks(table: Table, deadline: Deadline, reserved: float) -> Tried:
    """A network for each fold, trained without its rows; all together are what is kept, and not trained anew."""
    draws = _DRAWS_OF_FEW_ROWS if len(table.labels) <= _FEW_ROWS else 1
    seed = table.options.seed
    folds = [fold for draw in range(draws) for fold in stratified_folds(table.labels, seed + draw)]
    held_out = np.zeros([len(table.labels), len(folds)], bool)
    for number, fold in enumerate(folds):
        held_out[fold, number] = True
    trained = train_networks(
        table.split,
        held_out,
        table.vocabulary_size,
        table.classes,
        table.options,
        table.sizes,
        table.weights,
        lambda seconds: deadline.leaves(seconds + reserved),
        table.stream,
    )
    curves = {"loss": trained.losses, "val_loss": trained.held_out_losses}
    chosen = {"networks": len(folds), "epochs": trained.epochs}
    return Tried(trained.probabilities[table.held_out], chosen, lambda: keras_classifier(trained.model, curves))
