"""Networks of a table, trained side by side, each on the rows that are not its fold; their mean answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from scipy.linalg import block_diag

from trainers.blending import cross_entropies
from trainers.devices import training_devices
from trainers.row_store import Stream, ahead, is_among
from trainers.splits import Column, TransformedSplit, dense_batch
from trainers.tabular.models import LINEAR_PENALTY, NETWORK_PENALTY, TERM_SCALE, numbered_features
from trainers.tabular.options import TabularTrainerOptions
from transform.tabular import CATEGORIES, CATEGORY_VOCABULARY, HASHES, LIST, NUMBERS, TERMS, WEIGHTS

# A number is seen as what it has of hat functions, each 1 at its knot and 0 at the next ones: so many rows a knot, so
# that what happens at a single value of many rows can be learned, and few rows give a smooth answer.
_ROWS_OF_A_KNOT, _FEWEST_KNOTS, _MOST_KNOTS = 200, 3, 64
# Z-scores are cut off here in what is linear in them; the hats of the outermost knots go on without an end.
_MOST_DEVIATIONS = 3.0


def knots(values: np.ndarray, rows: int) -> np.ndarray:
    """float32, ascending: where a number's hat functions stand; none for one of fewer than three values.

    Half of them are quantiles of the values, half of the different ones: of a number that is nearly always 0, the rest
    is told apart as well.

    Args:
        values: float32 [n], of the training split.
        rows: how many there are to learn from.
    """
    different = np.unique(values)
    if len(different) < 3:
        return np.zeros(0, np.float32)
    most = int(np.clip(rows // _ROWS_OF_A_KNOT, _FEWEST_KNOTS, _MOST_KNOTS))
    if len(different) <= 2 * most:
        return different
    shares = np.linspace(0, 1, most + 1)
    return np.unique(np.concatenate([np.quantile(part, shares, method="nearest") for part in (values, different)]))


# Knots are far nearer to 0, and what is infinite would be no number times 0.
_LARGEST_NUMBER = 1e20
# The lines of a hat see the numbers of so many columns, all but one of them times 0: matrix products of this size take
# less than going over the hats once more.
_COLUMNS_AT_ONCE = 16


def _hats(numbers: keras.KerasTensor, values: np.ndarray) -> keras.KerasTensor | None:
    """float32 [batch, m]: of each number with knots, what it has of each hat function; 1 in the sum of a number."""
    of_columns = {column: knots(part, len(values)) for column, part in enumerate(values.T)}
    with_knots = [column for column, found in of_columns.items() if len(found)]
    parts = []
    for begin in range(0, len(with_knots), _COLUMNS_AT_ONCE):
        columns = with_knots[begin : begin + _COLUMNS_AT_ONCE]
        lines = [_lines_of_hats(of_columns[column]) for column in columns]
        chosen = keras.ops.clip(keras.ops.take(numbers, columns, axis=1), -_LARGEST_NUMBER, _LARGEST_NUMBER)
        rising, falling = (
            _fixed_dense(chosen, block_diag(*(line[side, 0] for line in lines)), [line[side, 1] for line in lines])
            for side in (0, 1)
        )
        parts.append(keras.layers.ReLU()(keras.ops.minimum(rising, falling)))
    return _joined(parts)


def _lines_of_hats(found: np.ndarray) -> np.ndarray:
    """[2, 2, knots]: slopes and shifts of the line up to each knot, and of the one down from it.

    A hat is what is above 0 of the lower one. Up to the first knot, and from the last one on, the line is 1.
    """
    slopes = 1 / np.diff(found)
    rising = [0, *slopes], [1, *(-found[:-1] * slopes)]
    falling = [*-slopes, 0], [*(found[1:] * slopes), 1]
    return np.array([rising, falling], np.float32)


def _fixed_dense(tensor: keras.KerasTensor, kernel: np.ndarray, bias: Sequence[np.ndarray]) -> keras.KerasTensor:
    layer = keras.layers.Dense(kernel.shape[1], trainable=False)
    found = layer(tensor)
    layer.set_weights([kernel, np.concatenate(bias)])
    return found


@dataclass
class _Parts:
    """What networks see.

    Attributes:
        inputs: by the features' names.
        shared: float32 [batch, n] each, the same for all networks.
        own: float32 [networks, batch, n] each, of embeddings.
        linear: float32 [batch, networks, classes] each, parts of the logits.
    """

    inputs: dict[str, keras.KerasTensor]
    shared: list[keras.KerasTensor]
    own: list[keras.KerasTensor]
    linear: list[keras.KerasTensor]


class _Builder:
    """Makes the parts; embeddings of all networks stand beside one another in one table."""

    def __init__(self, count: int, classes: int, options: TabularTrainerOptions) -> None:
        self._count, self._classes, self._options = count, classes, options
        self.parts = _Parts({}, [], [], [])

    def _table(self, name: str, rows: int, width: int, factor: float | None, start: str) -> keras.layers.Embedding:
        penalty = None if factor is None else keras.regularizers.L2(self._options.l2 * factor)
        return keras.layers.Embedding(
            rows, self._count * width, embeddings_initializer=start, embeddings_regularizer=penalty, name=name
        )

    def _part_of_logits(self, tensor: keras.KerasTensor) -> keras.KerasTensor:
        return keras.layers.Reshape([self._count, self._classes])(tensor)

    def _apart(self, tensor: keras.KerasTensor) -> keras.KerasTensor:
        """float32 [networks, batch, n] of [batch, m, networks * width], where n = m * width, or [batch, networks * n].

        In this order the layers of all networks are one product of matrices, without a transposition around each.
        """
        columns = tensor.shape[1] if len(tensor.shape) == 3 else 1
        width = tensor.shape[-1] // self._count
        found = keras.ops.reshape(tensor, [-1, columns, self._count, width])
        return keras.ops.reshape(keras.ops.transpose(found, [2, 0, 1, 3]), [self._count, -1, columns * width])

    def input(self, name: str, width: int | None, dtype: str) -> keras.KerasTensor:
        self.parts.inputs[name] = keras.Input([width], name=name, dtype=dtype)
        return self.parts.inputs[name]

    def numbers(self, values: np.ndarray) -> None:
        numbers = self.input(NUMBERS, values.shape[1], "float32")
        self.parts.shared.append(keras.ops.clip(numbers, -_MOST_DEVIATIONS, _MOST_DEVIATIONS))
        hats = _hats(numbers, values)
        if hats is not None:
            self.parts.shared.append(hats)

    def tables(self, name: str, rows: int, linear: float = 1.0, embedded: float | None = None) -> _Tables:
        """Two tables of embeddings, with these factors of their penalties."""
        width = self._options.embedding_width
        return _Tables(
            self._table(f"{name}_linear", rows, self._classes, linear, "zeros"),
            self._table(f"{name}_embedding", rows, width, embedded, "random_normal"),
        )

    def columns(self, numbers: keras.KerasTensor, tables: _Tables) -> None:
        """Of categories, one in each column: the embeddings of all of them, one after the other."""
        self.parts.own.append(self._apart(tables.embedded(numbers)))
        self.parts.linear.append(self._part_of_logits(keras.ops.sum(tables.linear(numbers), axis=1)))

    def sums(
        self,
        numbers: keras.KerasTensor,
        tables: _Tables,
        linear: keras.KerasTensor,
        embedded: keras.KerasTensor,
        scale: float = 1.0,
    ) -> None:
        """Of lists and terms: sums of their embeddings, each times its weight."""
        self.parts.own.append(self._apart(_weighted_sum(tables.embedded(numbers), embedded)))
        logits = _weighted_sum(tables.linear(numbers), linear)
        self.parts.linear.append(self._part_of_logits(logits if scale == 1.0 else scale * logits))

    def logits(self) -> keras.KerasTensor:
        """float32 [batch, networks, classes]."""
        options, shared, own = self._options, _joined(self.parts.shared), _joined(self.parts.own)
        linear, hidden = list(self.parts.linear), []
        first = options.hidden_units[0]
        # What a unit gets at the start is as much as it would get of all that is seen, were it one matrix.
        start = keras.initializers.RandomUniform(
            *_range(sum(one.shape[-1] for one in (shared, own) if one is not None))
        )
        if shared is not None:
            hidden.append(self._apart(keras.layers.Dense(self._count * first, kernel_initializer=start)(shared)))
            to_logits = keras.layers.Dense(self._count * self._classes, kernel_initializer="zeros")
            linear.append(self._part_of_logits(to_logits(shared)))
        if own is not None:
            hidden.append(_own_dense(own, first, start))
        tensor = _sum(hidden)
        for number, width in enumerate(options.hidden_units):
            if number:
                tensor = _own_dense(tensor, width, keras.initializers.RandomUniform(*_range(tensor.shape[-1], 2.0)))
            tensor = keras.layers.Dropout(options.dropout)(keras.layers.ReLU()(tensor))
        return _sum([*linear, keras.ops.transpose(_own_dense(tensor, self._classes, "zeros"), [1, 0, 2])])


def _own_dense(tensor: keras.KerasTensor, width: int, start: object) -> keras.KerasTensor:
    """Each network's own layer: [networks, batch, n] to [networks, batch, width]."""
    return keras.layers.EinsumDense("kbi,kio->kbo", [None, width], bias_axes="ko", kernel_initializer=start)(tensor)


@dataclass(frozen=True)
class _Tables:
    linear: keras.layers.Embedding
    embedded: keras.layers.Embedding


def _range(inputs: int, gain: float = 1.0) -> tuple[float, float]:
    bound = float(np.sqrt(3 * gain / inputs))
    return -bound, bound


def _joined(tensors: list[keras.KerasTensor]) -> keras.KerasTensor | None:
    if not tensors:
        return None
    return tensors[0] if len(tensors) == 1 else keras.layers.concatenate(tensors)


def _sum(tensors: list[keras.KerasTensor]) -> keras.KerasTensor:
    return tensors[0] if len(tensors) == 1 else keras.layers.add(tensors)


def _weighted_sum(vectors: keras.KerasTensor, weights: keras.KerasTensor) -> keras.KerasTensor:
    return keras.ops.einsum("bnd,bn->bd", vectors, weights)


# How much of a text is left out in training, as models.py has it.
_TERM_DROPOUT = 0.5


def build_networks(
    features: Mapping[str, Column],
    vocabulary_size: int,
    classes: int,
    count: int,
    options: TabularTrainerOptions,
    sizes: Mapping[str, int] = {},
) -> keras.Model:
    """Keras models of one build side by side: the features of transform/tabular.py to float32 [batch, count, classes].

    Each has a linear part, and hidden layers over numbers as hat functions, and over embeddings of its own.

    Args:
        features: what model_inputs gives of the training split; knots are taken from its numbers.
        vocabulary_size: how many categories are known.
        classes: how many labels there are.
        count: how many models.
        options: widths, dropout and penalty.
        sizes: as build_model takes them.

    Source: Gorishniy et al., On Embeddings for Numerical Features, https://arxiv.org/abs/2203.05556, section 3.2, whose
        piecewise linear encoding is a sum of these hat functions.
    """
    builder = _Builder(count, classes, options)
    if NUMBERS in features:
        builder.numbers(np.asarray(features[NUMBERS]))
    lists = numbered_features(features, LIST)
    if CATEGORIES in features or lists:
        # Row 0 is the unknown category, as in build_model.
        tables = builder.tables(CATEGORY_VOCABULARY, vocabulary_size + 1)
        if CATEGORIES in features:
            builder.columns(builder.input(CATEGORIES, features[CATEGORIES].shape[1], "int64") + 1, tables)
        for name in lists:
            numbers = builder.input(name, None, "int32")
            present = keras.ops.cast(numbers > 0, "float32")
            shares = present / keras.ops.maximum(keras.ops.sum(present, axis=1, keepdims=True), 1.0)
            builder.sums(numbers, tables, present, shares)
    if HASHES in features:
        hashes = builder.input(HASHES, features[HASHES].shape[1], "int64")
        builder.columns(hashes, builder.tables(HASHES, sizes[HASHES]))
    for name in numbered_features(features, TERMS):
        numbers = builder.input(name, None, "int32")
        weights = keras.layers.Dropout(_TERM_DROPOUT)(builder.input(f"{name}{WEIGHTS}", None, "float32"))
        tables = builder.tables(name, sizes[name] + 1, LINEAR_PENALTY, NETWORK_PENALTY)
        builder.sums(numbers, tables, weights, weights, TERM_SCALE)
    return keras.Model(builder.parts.inputs, builder.logits())


def mean_network(networks: keras.Model) -> keras.Model:
    """The mean of the probabilities of build_networks' models, float32 [batch, classes], by the same weights."""
    return keras.Model(networks.input, keras.ops.mean(_probabilities(networks.output), axis=1))


def _probabilities(logits: keras.KerasTensor) -> keras.KerasTensor:
    """The softmax of the last axis; of two classes by logistic functions, which take a third of the time."""
    if logits.shape[-1] != 2:
        return keras.ops.softmax(logits)
    return keras.ops.sigmoid(logits - keras.ops.flip(logits, axis=-1))


@dataclass(frozen=True)
class TrainedNetworks:
    """What train_networks gives.

    Attributes:
        model: the mean of all networks.
        probabilities: float32 [n, classes], of each row the mean of those networks that did not see it; rows that all
            have seen get 0.
        losses: of each epoch, over the rows that networks learn from.
        held_out_losses: the same over the rows that they did not see; the weights are those of the least.
    """

    model: keras.Model
    probabilities: np.ndarray
    losses: Sequence[float]
    held_out_losses: Sequence[float]

    @property
    def epochs(self) -> int:
        """How many went into the weights."""
        return int(np.argmin(self.held_out_losses)) + 1


# Small tables are trained in so many steps an epoch at least.
_FEWEST_STEPS, _SMALLEST_BATCH = 16, 32
_WEIGHT_DECAY = 0.01
# Of what the options say for a network whose step size decays, and which is alone.
_STEP_SIZE, _BATCHES = 0.2, 2
# So many epochs without a better loss are the end.
_PATIENCE = 4
_ROWS_AT_ONCE = 4096


def train_networks(
    split: TransformedSplit,
    held_out: np.ndarray,
    vocabulary_size: int,
    classes: int,
    options: TabularTrainerOptions,
    sizes: Mapping[str, int],
    weights: np.ndarray | None = None,
    goes_on: Callable[[float], bool] = lambda seconds: True,
    stream: Stream | None = None,
) -> TrainedNetworks:
    """Train networks on the rows that each may see, by AdamW, until those that they do not see get no better by them.

    What is measured and kept are means of the weights over the last epoch or so, which do what a decay of the step size
    would do, without an end that has to be known beforehand.

    Args:
        split: n rows.
        held_out: bool [n, networks], the rows that a network does not see.
        vocabulary_size: how many categories are known.
        classes: how many labels there are.
        options: widths, step size, batch size; epochs are so many at most.
        sizes: as build_model takes them.
        weights: float64 [n], 1 in the mean: how much each row counts; None where all count the same.
        goes_on: asked after each epoch with the seconds that one takes.
        stream: where to learn from, if the split is a sample of it; all rows that are not in the sample are seen. An
            epoch is a million rows then, where there are more, and the next one goes on behind them.
    """
    return _Training(split, held_out, vocabulary_size, classes, options, sizes, weights, stream).run(goes_on)


_ROWS_OF_AN_EPOCH = 1_000_000
_NETWORKS = "networks"


class _Learned(NamedTuple):
    """Rows that are learned from: their features, labels, which networks see them, and how much they count there."""

    columns: Mapping[str, Any]
    labels: Any
    seen: Any
    weighed: Any


@dataclass
class _State:
    """How far a training is.

    Attributes:
        losses: see TrainedNetworks.
        held_out_losses: likewise.
        best: the weights of the least of them.
        answers: their answers to the rows held out.
        steps: batches of a stream that were learned from.
        parts: of its parts.
    """

    losses: list[float]
    held_out_losses: list[float]
    best: list[np.ndarray]
    answers: np.ndarray
    steps: int = 0
    parts: int = 0


class _Training:
    def __init__(
        self,
        split: TransformedSplit,
        held_out: np.ndarray,
        vocabulary_size: int,
        classes: int,
        options: TabularTrainerOptions,
        sizes: Mapping[str, int],
        weights: np.ndarray | None,
        stream: Stream | None,
    ) -> None:
        rows, count = held_out.shape
        self._options, self._labels, self._held_out, self._weights = options, split.labels, held_out, weights
        self._stream = stream
        keras.utils.set_random_seed(options.seed)
        self._networks = build_networks(split.features, vocabulary_size, classes, count, options, sizes)
        self._mean = mean_network(self._networks)
        devices = training_devices(options)
        self._learner = learner = devices.learner(self._networks)
        variables = learner.trainable_variables
        optimizer = devices.optimizer(
            lambda: keras.optimizers.AdamW(_STEP_SIZE * options.learning_rate, weight_decay=_WEIGHT_DECAY)
        )
        with devices.scope():
            optimizer.build(variables)
            averages = [tf.Variable(variable.value) for variable in variables]
        self._averages = averages
        if stream is not None:
            rows = stream.store.rows
        batch_size = min(_BATCHES * options.batch_size, max(_SMALLEST_BATCH, rows // _FEWEST_STEPS))
        self._rows_of_an_epoch = rows if stream is None else min(rows, _ROWS_OF_AN_EPOCH)
        steps = -(-self._rows_of_an_epoch // batch_size)
        decay = 1 - 1 / steps
        columns = {
            name: column if isinstance(column, tf.RaggedTensor) else tf.constant(column)
            for name, column in split.features.items()
        }
        labels, seen = tf.constant(split.labels), tf.constant(~held_out, tf.float32)
        weighed = seen if weights is None else seen * tf.constant(weights[:, None], tf.float32)

        def step(learned: _Learned, chosen: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
            def learn() -> tf.Tensor:
                rows = devices.part(chosen)
                with tf.GradientTape() as tape:
                    logits = tf.cast(learner(dense_batch(learned.columns, rows), training=True), tf.float32)
                    truth = tf.repeat(tf.gather(learned.labels, rows)[:, None], count, axis=1)
                    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(truth, logits)
                    total = tf.maximum(tf.reduce_sum(tf.gather(learned.seen, chosen), axis=0), 1.0)
                    means = tf.reduce_sum(losses * tf.gather(learned.weighed, rows), axis=0) / total
                    loss = tf.add_n([tf.reduce_sum(means), *devices.shares(learner.losses)])
                    loss = optimizer.scale_loss(loss)
                gradients = tape.gradient(loss, [variable.value for variable in variables])
                optimizer.apply(gradients, variables)
                return tf.reduce_mean(means)

            mean = devices.sum(learn)
            # The mean of few steps, at the beginning of those that there were.
            share = tf.minimum(decay, (1.0 + number) / (10.0 + number))
            for average, variable in zip(averages, variables, strict=True):
                devices.update(
                    average, lambda one, other: one.assign(share * one + (1 - share) * other), variable.value
                )
            return mean

        def steps_over(learned: _Learned, order: tf.Tensor, steps: Any, before: tf.Tensor) -> tf.Tensor:
            """The sum of the losses of the batches of rows in this order."""
            _, total = tf.while_loop(
                lambda place, _: place < steps,
                lambda place, total: (
                    place + 1,
                    total
                    + step(
                        learned,
                        order[place * batch_size : (place + 1) * batch_size],
                        tf.cast(before + place, tf.float32),
                    ),
                ),
                [tf.constant(0), tf.constant(0.0)],
            )
            return total

        @tf.function(input_signature=[tf.TensorSpec([], tf.int32)], autograph=False)
        def epoch(number: tf.Tensor) -> tf.Tensor:
            order = tf.random.experimental.stateless_shuffle(
                tf.range(rows, dtype=tf.int64), tf.stack([options.seed, number])
            )
            return steps_over(_Learned(columns, labels, seen, weighed), order, steps, number * steps) / steps

        if stream is not None:
            of_networks = tf.TensorSpec([None, count], tf.float32)
            taken = _Learned(stream.store.spec(), tf.TensorSpec([None], tf.int64), of_networks, of_networks)

            @tf.function(input_signature=[taken, tf.TensorSpec([], tf.int32)], autograph=False)
            def over_part(learned: _Learned, before: tf.Tensor) -> tf.Tensor:
                count = tf.size(learned.labels)
                steps = tf.cast(tf.math.ceil(count / batch_size), tf.int32)
                return steps_over(learned, tf.range(tf.cast(count, tf.int64)), steps, before)

            self._over_part = over_part

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64)], autograph=False)
        def answers(chosen: tf.Tensor) -> tf.Tensor:
            """float32 [n, classes]: the mean of the networks that did not see each row."""
            probabilities = tf.nn.softmax(self._networks(dense_batch(columns, chosen), training=False))
            unseen = 1 - tf.gather(seen, chosen)
            return tf.reduce_sum(probabilities * unseen[:, :, None], axis=1) / tf.reduce_sum(unseen, axis=1)[:, None]

        self._epoch, self._answers, self._variables = epoch, answers, self._networks.trainable_variables
        self._optimizer, self._batch_size = optimizer, batch_size

    def run(self, goes_on: Callable[[float], bool]) -> TrainedNetworks:
        asked = np.flatnonzero(self._held_out.any(axis=1))
        state = self._begin() if self._stream is None else self._restored(self._stream)
        before = len(state.losses)
        most = self._options.epochs
        if self._stream is not None:
            most *= -(-self._stream.store.rows // self._rows_of_an_epoch)
        pieces = None if self._stream is None else ahead(self._pieces(self._stream, state.parts))
        started = time.monotonic()
        for number in range(before, most):
            if number and number - 1 - int(np.argmin(state.held_out_losses)) >= _PATIENCE:
                break
            state.losses.append(float(self._epoch(number)) if pieces is None else self._streamed_epoch(pieces, state))
            trained = self._exchange([average.numpy() for average in self._averages])
            answers = self._predict(asked)
            weights = None if self._weights is None else self._weights[asked]
            loss = float(np.average(cross_entropies(answers, self._labels[asked]), weights=weights))
            state.held_out_losses.append(loss)
            if int(np.argmin(state.held_out_losses)) == number:
                state.best, state.answers = self._exchange(trained), answers
            else:
                self._exchange(trained)
            if self._stream is not None:
                self._keep(self._stream, state)
            if not goes_on((time.monotonic() - started) / (len(state.losses) - before)):
                break
        self._exchange(state.best)
        probabilities = np.zeros([len(self._labels), state.answers.shape[1]], np.float32)
        probabilities[asked] = state.answers
        return TrainedNetworks(self._mean, probabilities, state.losses, state.held_out_losses)

    def _begin(self) -> _State:
        return _State([], [], [average.numpy() for average in self._averages], np.zeros((0, 0), np.float32))

    def _streamed_epoch(self, pieces: Iterator[_Learned], state: _State) -> float:
        """The mean loss of the steps over the next rows."""
        rows, steps, total = 0, 0, 0.0
        while rows < self._rows_of_an_epoch:
            learned = next(pieces)
            total += float(self._over_part(learned, tf.constant(state.steps + steps, tf.int32)))
            rows += len(learned.labels)
            steps += -(-len(learned.labels) // self._batch_size)
            state.parts += 1
        state.steps += steps
        return total / steps

    def _pieces(self, stream: Stream, skipped: int) -> Iterator[_Learned]:
        """The store's rows, pass after pass, without the first parts of them."""
        passes = (stream.store.shuffled(self._batch_size, self._options.seed, number) for number in count())
        balanced = self._options.class_weights == "balanced"
        for part in islice(chain.from_iterable(passes), skipped, None):
            seen = np.ones([len(part.numbers), self._held_out.shape[1]], np.float32)
            known = is_among(part.numbers, stream.sample)
            seen[known] = ~self._held_out[np.searchsorted(stream.sample, part.numbers[known])]
            weights = stream.store.training_weights(part.split, balanced)
            weighed = seen if weights is None else seen * weights[:, None].astype(np.float32)
            columns = {
                name: column if isinstance(column, tf.RaggedTensor) else tf.constant(column)
                for name, column in part.split.features.items()
            }
            yield _Learned(columns, tf.constant(part.split.labels), tf.constant(seen), tf.constant(weighed))

    def _all_variables(self) -> list[Any]:
        """Of the networks, those of their dropout among them, of the optimizer, and the means."""
        return [*self._learner.variables, *self._optimizer.variables, *self._averages]

    def _keep(self, stream: Stream, state: _State) -> None:
        """Write what a training that is killed now goes on from."""
        values = {f"variable{place}": np.asarray(one) for place, one in enumerate(self._all_variables())}
        values |= {f"best{place}": value for place, value in enumerate(state.best)}
        counts = np.array([state.steps, state.parts])
        losses = np.array([state.losses, state.held_out_losses])
        stream.finished.replace(_NETWORKS, {**values, "answers": state.answers, "counts": counts, "losses": losses})

    def _restored(self, stream: Stream) -> _State:
        found = stream.finished.found(_NETWORKS)
        if found is None:
            return self._begin()
        for place, variable in enumerate(self._all_variables()):
            variable.assign(found[f"variable{place}"])
        best = [found[f"best{place}"] for place in range(len(self._averages))]
        losses, held_out_losses = found["losses"].tolist()
        steps, parts = found["counts"].tolist()
        return _State(losses, held_out_losses, best, found["answers"], steps, parts)

    def _exchange(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Set the networks' weights, and give those before."""
        before = [variable.numpy() for variable in self._variables]
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)
        return before

    def _predict(self, rows: np.ndarray) -> np.ndarray:
        parts = [
            self._answers(tf.constant(rows[first : first + _ROWS_AT_ONCE], tf.int64)).numpy()
            for first in range(0, len(rows), _ROWS_AT_ONCE)
        ]
        return np.concatenate(parts)
