"""Forests of the libraries that grow them, as the one kind of forest that is served."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from serving.signatures.forests import AT_LEAST, IN_SET, LEAF, OBLIQUE, Forest, forest_scores
from trainers.errors import TrainingError


@dataclass
class _Growing:
    """The nodes of a forest in the making; a node is known by its number."""

    nodes: list[tuple[int, int, float, int, bool, int, int, int]] = field(default_factory=list)
    leaf_values: list[Sequence[float]] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)
    tree_outputs: list[int] = field(default_factory=list)
    sets: dict[bytes, int] = field(default_factory=dict)
    projections: list[tuple[Sequence[int], Sequence[float], Sequence[float]]] = field(default_factory=list)

    def leaf(self, values: Sequence[float]) -> int:
        self.leaf_values.append(values)
        return self._add(LEAF, leaf=len(self.leaf_values) - 1)

    def at_least(self, column: int, threshold: float, missing: bool, yes: int, no: int) -> int:
        return self._add(AT_LEAST, column, threshold, missing=missing, yes=yes, no=no)

    def in_set(self, column: int, members: Sequence[int], missing: bool, yes: int, no: int) -> int:
        bits = np.zeros(max(members, default=0) + 1, bool)
        bits[[*members]] = True
        packed = np.packbits(bits, bitorder="little").tobytes()
        number = self.sets.setdefault(packed, len(self.sets))
        return self._add(IN_SET, column, members=number, missing=missing, yes=yes, no=no)

    def oblique(
        self,
        columns: Sequence[int],
        weights: Sequence[float],
        replacements: Sequence[float],
        threshold: float,
        missing: bool,
        yes: int,
        no: int,
    ) -> int:
        self.projections.append((columns, weights, replacements or [np.nan] * len(columns)))
        return self._add(OBLIQUE, len(self.projections) - 1, threshold, missing=missing, yes=yes, no=no)

    def _add(
        self,
        condition: int,
        column: int = 0,
        threshold: float = 0.0,
        members: int = 0,
        missing: bool = False,
        yes: int = 0,
        no: int = 0,
        leaf: int = 0,
    ) -> int:
        self.nodes.append((condition, column, threshold, members, missing, yes, no, leaf))
        return len(self.nodes) - 1

    def tree(self, root: int, output: int = 0) -> None:
        self.roots.append(root)
        self.tree_outputs.append(output)

    def forest(self, bias: Sequence[float], category_counts: Sequence[int]) -> Forest:
        condition, column, threshold, members, missing, yes, no, leaf = zip(*self.nodes, strict=True)
        size = max((len(bits) for bits in self.sets), default=1)
        sets = np.zeros((max(len(self.sets), 1), size), np.uint8)
        for bits, number in self.sets.items():
            sets[number, : len(bits)] = np.frombuffer(bits, np.uint8)
        terms = max((len(columns) for columns, _, _ in self.projections), default=0)
        shape = (len(self.projections), terms)
        columns, weights, replacements = (np.full(shape, filler, np.float64) for filler in (-1, 0, 0))
        for row, of_node in enumerate(self.projections):
            for filled, given in zip((columns, weights, replacements), of_node, strict=True):
                filled[row, : len(given)] = given
        return Forest(
            roots=np.array(self.roots, np.int32),
            condition=np.array(condition, np.int8),
            column=np.array(column, np.int32),
            threshold=np.array(threshold, np.float64),
            members=np.array(members, np.int32),
            missing=np.array(missing, bool),
            yes=np.array(yes, np.int32),
            no=np.array(no, np.int32),
            leaf=np.array(leaf, np.int32),
            sets=sets,
            category_counts=np.array(category_counts, np.int32),
            projection_columns=columns.astype(np.int32),
            projection_weights=weights.astype(np.float32),
            projection_replacements=replacements.astype(np.float32),
            leaf_values=np.array(self.leaf_values, np.float64),
            tree_outputs=np.array(self.tree_outputs, np.int32),
            bias=np.array(bias, np.float64),
        )


def sigmoid_of_scores(scores: tf.Tensor) -> tf.Tensor:
    """float32 [batch, 2]: of the log odds of the second class, [batch, 1], the probabilities of both."""
    return tf.concat([tf.sigmoid(-scores), tf.sigmoid(scores)], axis=1)


@dataclass(frozen=True)
class TreeModel:
    """A forest with what it takes and what it answers.

    Attributes:
        forest: the trees.
        numbers: the columns of numbers, in the order in which the forest counts them.
        categories: column -> the categories in the order of their numbers, in the order in which the forest counts the
            columns.
        unknown: the number of a value that is not among the categories; -1 where it counts as missing.
        labels: the classes in the order of the probabilities; () where the model knows their numbers only.
        probabilities: scores, float32 [batch, outputs] -> float32 [batch, classes].
        dtype: that of the numbers that conditions are compared in.
    """

    forest: Forest
    numbers: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]]
    labels: tuple[str, ...]
    probabilities: Callable[[tf.Tensor], tf.Tensor]
    unknown: int = -1
    dtype: tf.DType = tf.float32

    def predict(self, numbers: tf.Tensor, categories: tf.Tensor) -> tf.Tensor:
        """float32 [batch, classes], of what forest_scores takes."""
        return self.probabilities(forest_scores(self.forest, numbers, categories))


def forest_of_ydf(model: Any) -> TreeModel:
    """A classifier of YDF: gradient boosted trees, a random forest, or CART.

    Args:
        model: what a learner of `ydf` gives, or `ydf.load_model`.

    Raises:
        TrainingError: it is no classifier of these, or has conditions on what is neither a number nor a category.
    """
    import ydf

    boosted = isinstance(model, ydf.GradientBoostedTreesModel)
    if model.task() != ydf.Task.CLASSIFICATION or not (boosted or isinstance(model, ydf.RandomForestModel)):
        raise TrainingError(
            f"the YDF model is a {model.name()} for {model.task().name}, expected gradient boosted trees or a random "
            "forest for CLASSIFICATION; train one of these"
        )
    labels = tuple(str(label) for label in model.label_classes())
    columns = _YdfColumns.of(model)
    growing = _Growing()
    trees = model.get_all_trees()
    if boosted:
        link = sigmoid_of_scores if len(labels) == 2 else tf.nn.softmax
        bias = [float(value) for value in model.initial_predictions()]
        for number, tree in enumerate(trees):
            growing.tree(_ydf_node(tree.root, columns, growing, lambda value: [value.value]), number % len(bias))
        return TreeModel(
            growing.forest(bias, columns.category_counts), columns.numbers, columns.categories, labels, link, unknown=0
        )

    votes = model.winner_takes_all()

    def share(value: Any) -> Sequence[float]:
        probability = np.asarray(value.probability)
        shares: np.ndarray = np.eye(len(labels))[probability.argmax()] if votes else probability
        return [*(shares / len(trees))]

    for tree in trees:
        growing.tree(_ydf_node(tree.root, columns, growing, share))
    forest = growing.forest([0.0] * len(labels), columns.category_counts)
    return TreeModel(forest, columns.numbers, columns.categories, labels, tf.identity, unknown=0)


@dataclass(frozen=True)
class _YdfColumns:
    """Where a column of the data specification stands among those of the forest, and the specification of each."""

    place: Mapping[int, int]
    specifications: Sequence[Any]
    numbers: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]]

    @property
    def category_counts(self) -> list[int]:
        return [len(known) for known in self.categories.values()]

    @classmethod
    def of(cls, model: Any) -> _YdfColumns:
        from ydf.dataset.dataspec import categorical_column_dictionary_to_list

        specifications = model.data_spec().columns
        place: dict[int, int] = {}
        numbers: list[str] = []
        categories: dict[str, tuple[str, ...]] = {}
        for feature in model.input_features():
            column = specifications[feature.column_idx]
            if feature.semantic.name == "CATEGORICAL":
                place[feature.column_idx] = len(categories)
                whole = column.categorical.is_already_integerized
                known = map(str, range(column.categorical.number_of_unique_values)) if whole else None
                categories[feature.name] = tuple(known or categorical_column_dictionary_to_list(column))
            elif feature.semantic.name in ("NUMERICAL", "BOOLEAN", "DISCRETIZED_NUMERICAL"):
                place[feature.column_idx] = len(numbers)
                numbers.append(feature.name)
            else:
                raise TrainingError(
                    f"the YDF model takes {feature.name!r} as {feature.semantic.name}, expected numbers, booleans and "
                    "categories; train it without that column"
                )
        return cls(place, specifications, tuple(numbers), categories)


def _ydf_node(node: Any, columns: _YdfColumns, growing: _Growing, values: Callable[[Any], Sequence[float]]) -> int:
    """The number of a node, which is added with all that is below it."""
    from ydf.model.tree import condition as conditions

    if node.is_leaf:
        return growing.leaf(values(node.value))
    test = node.condition
    yes, no = (_ydf_node(child, columns, growing, values) for child in (node.pos_child, node.neg_child))
    if isinstance(test, conditions.NumericalSparseObliqueCondition):
        places = [columns.place[column] for column in test.attributes]
        return growing.oblique(places, test.weights, test.na_replacements, test.threshold, test.missing, yes, no)
    place, specification = columns.place[test.attribute], columns.specifications[test.attribute]
    match test:
        case conditions.NumericalHigherThanCondition():
            return growing.at_least(place, test.threshold, test.missing, yes, no)
        case conditions.DiscretizedNumericalHigherThanCondition():
            threshold = specification.discretized_numerical.boundaries[test.threshold_idx - 1]
            return growing.at_least(place, threshold, test.missing, yes, no)
        case conditions.IsTrueCondition():
            return growing.at_least(place, 0.5, test.missing, yes, no)
        case conditions.CategoricalIsInCondition():
            return growing.in_set(place, test.mask, test.missing, yes, no)
        case conditions.IsMissingInCondition() if specification.name in columns.categories:
            return growing.in_set(place, [], True, yes, no)
        case conditions.IsMissingInCondition():
            return growing.at_least(place, np.inf, True, yes, no)
    raise TrainingError(
        f"the YDF model has a {type(test).__name__} on {specification.name!r}, expected conditions on numbers and "
        "categories; train it without that column"
    )
