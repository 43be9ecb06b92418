"""Decision trees by YDF: what they see of Transform's features, their training, and their answers in the graph."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from serving.signatures.common import Features
from trainers.splits import Column, dense_batch
from trainers.tabular.options import TreeOptions
from trainers.tabular.tree_models import forest_of_ydf
from transform.tabular import CATEGORIES, HASHES, LIST, NUMBERS, TERMS, WEIGHTS

# Of a list and of a text, so many of the most frequent categories and terms are numbers of their own.
_MOST_IN_LIST, _MOST_TERMS = 64, 128
_ROWS_AT_ONCE = 65_536
UNKNOWN = -1
_NUMBER, _CATEGORY = "number", "category"


@dataclass(frozen=True)
class TreeInputs:
    """What trees see of the features of transform/tabular.py: numbers, and numbers of categories.

    Numbers are those of the feature `numbers`: 0, the mean, where a value is missing, as YDF itself would replace it,
    and flags that say so. What a list or a text contains is a number for each of its most frequent categories or terms.

    Attributes:
        lists: feature -> int32 [n], the numbers in it that have a column of their own.
        terms: feature -> the same of a text's terms.
        category_sizes: int [m], of each column of categories how many numbers it may have.
    """

    lists: Mapping[str, np.ndarray]
    terms: Mapping[str, np.ndarray]
    category_sizes: np.ndarray

    @classmethod
    def of(cls, features: Mapping[str, Column], vocabulary_size: int, sizes: Mapping[str, int]) -> TreeInputs:
        """Those of a table, by the features that models.model_inputs gives of its training split."""
        names = [name for name, column in features.items() if isinstance(column, tf.RaggedTensor)]
        numbered = [name for name in names if not name.endswith(WEIGHTS)]
        lists = {name: _frequent(features[name], _MOST_IN_LIST) for name in numbered if name.startswith(LIST)}
        terms = {name: _frequent(features[name], _MOST_TERMS) for name in numbered if name.startswith(TERMS)}
        of_categories = [vocabulary_size] * (features[CATEGORIES].shape[1] if CATEGORIES in features else 0)
        of_hashes = [sizes[HASHES]] * features[HASHES].shape[1] if HASHES in features else []
        return cls(lists, terms, np.array([*of_categories, *of_hashes], np.int64))

    def __call__(self, features: Features) -> tuple[tf.Tensor, tf.Tensor]:
        """Numbers, float32 [batch, n], and categories, int64 [batch, m], UNKNOWN for an unknown one.

        Args:
            features: filled up, see trainers.splits.dense_batch.
        """
        batch = tf.shape(next(iter(features.values())))[0]
        numbers = [features[NUMBERS]] if NUMBERS in features else []
        numbers += [_columns(features[name], None, chosen) for name, chosen in self.lists.items()]
        numbers += [
            _columns(features[name], features[f"{name}{WEIGHTS}"], chosen) for name, chosen in self.terms.items()
        ]
        categories = [features[name] for name in (CATEGORIES, HASHES) if name in features]
        return (
            tf.concat(numbers, axis=1) if numbers else tf.zeros([batch, 0]),
            tf.concat(categories, axis=1) if categories else tf.zeros([batch, 0], tf.int64),
        )


def _frequent(column: tf.RaggedTensor, most: int) -> np.ndarray:
    """int32: the numbers that most rows have, the most frequent first; 0 fills up and counts for none."""
    found, counts = np.unique(column.flat_values.numpy(), return_counts=True)
    order = np.argsort(-counts[found > 0], kind="stable")
    result: np.ndarray = found[found > 0][order][:most].astype(np.int32)
    return result


def _columns(numbers: tf.Tensor, weights: tf.Tensor | None, chosen: np.ndarray) -> tf.Tensor:
    """float32 [batch, len(chosen)]: the weight, or 1, of each chosen number in a row; 0 where the row has it not."""
    slots = np.zeros(int(chosen.max(initial=0)) + 1, np.int32)
    slots[chosen] = np.arange(1, len(chosen) + 1)
    numbers = tf.cast(numbers, tf.int32)
    slot = tf.gather(slots, tf.where(numbers < len(slots), numbers, 0))
    if weights is None:
        weights = tf.ones_like(slot, tf.float32)
    rows = tf.shape(slot)[0]
    # A row's slots follow those of the row before.
    width = len(chosen) + 1
    places = tf.range(rows)[:, None] * width + slot
    summed = tf.math.unsorted_segment_sum(tf.reshape(weights, [-1]), tf.reshape(places, [-1]), rows * width)
    return tf.reshape(summed, [rows, width])[:, 1:]


@dataclass(frozen=True)
class TreeTable:
    """Rows as YDF takes them.

    Attributes:
        numbers: float32 [n, numbers].
        categories: int64 [n, categories].
    """

    numbers: np.ndarray
    categories: np.ndarray

    @classmethod
    def of(cls, inputs: TreeInputs, features: Mapping[str, Column], count: int) -> TreeTable:
        """All rows of a split, some at a time."""
        starts = range(0, max(count, 1), _ROWS_AT_ONCE)
        batches = [
            inputs(dense_batch(features, tf.range(start, min(start + _ROWS_AT_ONCE, count), dtype=tf.int64)))
            for start in starts
        ]
        numbers, categories = (np.concatenate([part.numpy() for part in parts]) for parts in zip(*batches, strict=True))
        return cls(numbers, categories)

    def rows(self, chosen: np.ndarray) -> TreeTable:
        return TreeTable(self.numbers[chosen], self.categories[chosen])

    def columns(self) -> dict[str, np.ndarray]:
        """By name, as YDF takes them; categories as the text of their number."""
        numbers = {f"{_NUMBER}{place}": values for place, values in enumerate(self.numbers.T)}
        names = np.array([str(number).encode() for number in range(UNKNOWN, self.categories.max(initial=0) + 1)])
        return numbers | {
            f"{_CATEGORY}{place}": names[values - UNKNOWN] for place, values in enumerate(self.categories.T)
        }


@contextmanager
def _quiet() -> Iterator[None]:
    """Without YDF's remark that categories look like numbers, one for each column and training."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


# YDF draws the columns of a split by thread, so that other numbers of threads grow other trees; and of few rows a
# single thread grows them many times as fast.
_ROWS_OF_ONE_THREAD, _THREADS = 20_000, 4
# Of more rows a split is chosen among 255 quantiles of a number: it takes half the time, and is no worse.
_ROWS_OF_EXACT_SPLITS = 100_000
# At most so many trees, and how much of each counts; of many rows, for which splits are not exact, fewer and larger
# steps are as good in half the time.
_STEPS, _STEPS_OF_MANY = (600, 0.05), (300, 0.1)
# A tree grows level by level, or where it gains most: as many leaves, up to so many levels further down. That is worse
# of few rows, and of many no better for a third more time; in between, folds tell.
GROWTHS = BY_LEVEL, BEST_FIRST = "level by level", "best first"
_ROWS_OF_BOTH = 1_500, 10_000
_FURTHER_LEVELS = 5
# Of few rows, trees that see parts of them, and of the columns, are better together than those that see all.
_SHARE_OF_FEW_ROWS, _SHARE_OF_FEW_COLUMNS = 0.8, 0.5
LABEL_COLUMN, _WEIGHT_COLUMN = "label", "weight"


def train_boosted(
    table: TreeTable,
    labels: np.ndarray,
    weights: np.ndarray | None,
    options: TreeOptions,
    seed: int,
    growth: str,
    count: int | None = None,
    held_out: tuple[TreeTable, np.ndarray, np.ndarray | None] | None = None,
) -> Any:
    """YDF's gradient boosted trees.

    Args:
        table: n rows.
        labels: int64 [n].
        weights: float64 [n], how much each row counts; None where all count the same.
        options: size and number of trees.
        seed: of what is drawn.
        growth: one of GROWTHS.
        count: how many trees, or options.count.
        held_out: rows that tell when further trees do not gain any more, their labels and weights; those trees are
            left out.
    """
    import ydf

    stops = held_out is not None
    few = has_few_rows(table)
    most_trees, step_size = _STEPS if _is_exact(table) else _STEPS_OF_MANY
    learner = ydf.GradientBoostedTreesLearner(
        **_common(table, seed, weights is not None),
        num_trees=count or options.count or most_trees,
        **_growing(growth, options.max_depth),
        shrinkage=options.learning_rate or step_size,
        min_examples=options.min_examples,
        subsample=options.subsample or (_SHARE_OF_FEW_ROWS if few else 1.0),
        num_candidate_attributes_ratio=options.feature_share or (_SHARE_OF_FEW_COLUMNS if few else 1.0),
        # Of rows with weights YDF counts the weight in the gradients alone then, and its splits are bad.
        use_hessian_gain=weights is None,
        l2_regularization=1.0,
        categorical_algorithm="RANDOM",
        # Of the rows themselves; with others held out, a share of 0 would have no early stopping.
        validation_ratio=0.1 if stops else 0.0,
        early_stopping="LOSS_INCREASE" if stops else "NONE",
    )
    return _train(learner, _with_labels(table, labels, weights), held_out and _with_labels(*held_out))


def _growing(growth: str, max_depth: int) -> dict[str, Any]:
    if growth == BY_LEVEL:
        return {"max_depth": max_depth}
    # YDF counts leaves as nodes here, and the levels below the root.
    leaves = {"max_num_nodes": 2 ** (max_depth - 1), "max_depth": max_depth + _FURTHER_LEVELS - 1}
    return {"growing_strategy": "BEST_FIRST_GLOBAL", **leaves}


def growths_to_try(table: TreeTable) -> Sequence[str]:
    """Those of GROWTHS that may be the better one of so many rows."""
    fewest, most = _ROWS_OF_BOTH
    return GROWTHS if fewest <= len(table.numbers) <= most else [BY_LEVEL]


def train_random_forest(table: TreeTable, labels: np.ndarray, weights: np.ndarray | None, count: int, seed: int) -> Any:
    """YDF's random forest of `count` trees, whose answer is the mean of what its leaves say of each label.

    A leaf of a deep tree holds so few rows that weights say nothing there: each row stands as often as it weighs
    instead, rounded up or down by chance.
    """
    import ydf

    if weights is not None:
        counts = np.floor(weights / weights.mean() + np.random.default_rng(seed).random(len(weights))).astype(int)
        chosen = np.repeat(np.arange(len(weights)), counts)
        table, labels = table.rows(chosen), labels[chosen]
    learner = ydf.RandomForestLearner(
        **_common(table, seed, False),
        num_trees=count,
        max_depth=_DEEPEST,
        min_examples=2,
        categorical_algorithm="RANDOM",
        winner_take_all=False,
        compute_oob_performances=False,
    )
    return _train(learner, _with_labels(table, labels, None), None)


_DEEPEST = 24


def has_few_rows(table: TreeTable) -> bool:
    """Whether one thread grows a model, so that several models can be grown at a time."""
    return len(table.numbers) <= _ROWS_OF_ONE_THREAD


def _is_exact(table: TreeTable) -> bool:
    return len(table.numbers) <= _ROWS_OF_EXACT_SPLITS


def _common(table: TreeTable, seed: int, weighted: bool) -> dict[str, Any]:
    import ydf

    number = ydf.Semantic.NUMERICAL if _is_exact(table) else ydf.Semantic.DISCRETIZED_NUMERICAL
    numbers = [(f"{_NUMBER}{place}", number) for place in range(table.numbers.shape[1])]
    categories = [(f"{_CATEGORY}{place}", ydf.Semantic.CATEGORICAL) for place in range(table.categories.shape[1])]
    return {
        "label": LABEL_COLUMN,
        "weights": _WEIGHT_COLUMN if weighted else None,
        "features": [*numbers, *categories],
        "random_seed": seed,
        "num_threads": 1 if has_few_rows(table) else _THREADS,
    }


def _train(learner: Any, rows: dict[str, np.ndarray], held_out: dict[str, np.ndarray] | None) -> Any:
    import ydf

    ydf.verbose(0)
    with _quiet():
        return learner.train(rows, valid=held_out)


def _with_labels(table: TreeTable, labels: np.ndarray, weights: np.ndarray | None) -> dict[str, np.ndarray]:
    columns = table.columns() | {LABEL_COLUMN: labels}
    return columns if weights is None else columns | {_WEIGHT_COLUMN: weights.astype(np.float32)}


def tree_count(model: Any) -> int:
    """How many iterations of boosting a model has: of several labels, each has a tree for each of them."""
    return int(model.num_trees()) // int(model.num_trees_per_iteration())


def save_trees(path: Path, model: Any) -> None:
    """Write YDF's model into a new folder."""
    model.save(str(path))


def load_trees(path: Path) -> Any:
    """Read what save_trees wrote."""
    import ydf

    return ydf.load_model(str(path))


def tree_probabilities(model: Any, table: TreeTable, classes: int) -> np.ndarray:
    """float32 [n, classes]: YDF's own answers; 0 for a label that the model never met."""
    answers = np.asarray(model.predict(table.columns()), np.float32)
    if answers.ndim == 1:
        answers = np.stack([1 - answers, answers], axis=1)
    result = np.zeros((len(answers), classes), np.float32)
    result[:, known_labels(model)] = answers
    return result


def known_labels(model: Any) -> list[int]:
    """The label that each of YDF's answers is about."""
    return [int(label) for label in model.label_classes()]


def tree_answers(model: Any, inputs: TreeInputs, classes: int) -> Callable[[Features], tf.Tensor]:
    """Features, filled up, to what tree_probabilities gives of their rows, in core operations."""
    trees = forest_of_ydf(model)
    numbers = [int(name.removeprefix(_NUMBER)) for name in trees.numbers]
    chosen = [int(name.removeprefix(_CATEGORY)) for name in trees.categories]
    # Where YDF has each number of a category among those of its column; it has its own order.
    tables = []
    for column, known in zip(chosen, trees.categories.values(), strict=True):
        places = {name: place for place, name in enumerate(known)}
        every = range(UNKNOWN, int(inputs.category_sizes[column]))
        tables.append([places.get(str(number), trees.unknown) for number in every])
    first = np.cumsum([0, *(len(table) for table in tables)])[:-1] - UNKNOWN
    flat = np.concatenate([np.zeros(0), *tables]).astype(np.int64)
    known_to_model = known_labels(model)

    def answer(features: Features) -> tf.Tensor:
        all_numbers, all_categories = inputs(features)
        places = tf.gather(all_categories, np.array(chosen, np.int32), axis=1) + first.astype(np.int64)
        answers = trees.predict(
            tf.gather(all_numbers, np.array(numbers, np.int32), axis=1),
            tf.gather(flat, places) if chosen else tf.zeros_like(places),
        )
        if known_to_model == list(range(classes)):
            return answers
        return tf.linalg.matmul(answers, np.eye(classes, dtype=np.float32)[known_to_model])

    return answer
