"""Forests of the libraries that grow them, as the one kind of forest that is served."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from serving.signatures.common import is_missing
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

    def forest(self, bias: Sequence[float] | np.ndarray, category_counts: Sequence[int]) -> Forest:
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


# What LightGBM takes for 0.
_LIGHTGBM_ZERO = 1e-35


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
        zero_is_missing: whether 0 counts as a missing number.
    """

    forest: Forest
    numbers: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]]
    labels: tuple[str, ...]
    probabilities: Callable[[tf.Tensor], tf.Tensor]
    unknown: int = -1
    dtype: tf.DType = tf.float32
    zero_is_missing: bool = False

    def predict(self, numbers: tf.Tensor, categories: tf.Tensor) -> tf.Tensor:
        """[batch, classes], of what forest_scores takes."""
        if self.zero_is_missing:
            nan = tf.constant(np.nan, numbers.dtype)
            numbers = tf.where(tf.abs(numbers) <= _LIGHTGBM_ZERO, nan, numbers)
        return self.probabilities(forest_scores(self.forest, numbers, categories))

    def predict_columns(self, columns: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """float32 [batch, classes], of columns as a table has them, [batch] each, see serving/missing_values.py."""
        batch = tf.size(next(iter(columns.values())))
        numbers = [number_column(columns[name], self.dtype) for name in self.numbers]
        categories = [
            category_numbers(text_column(columns[name]), known, self.unknown) for name, known in self.categories.items()
        ]
        return self.predict(
            tf.stack(numbers, axis=1) if numbers else tf.zeros([batch, 0], self.dtype),
            tf.stack(categories, axis=1) if categories else tf.zeros([batch, 0], tf.int64),
        )


def number_column(values: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """[batch] of a floating dtype: the numbers of a column of a table, NaN where it has none."""
    return tf.where(is_missing(values), tf.constant(np.nan, dtype), tf.cast(values, dtype))


def text_column(values: tf.Tensor) -> tf.Tensor:
    """string [batch]: the values of a column of a table as text, "" where it has none."""
    text = values if values.dtype == tf.string else tf.strings.as_string(values, shortest=values.dtype.is_floating)
    return tf.where(is_missing(values), "", text)


# One less than 2^63, of which to_hash_bucket_fast takes the remainder.
_HASHES = 2**63 - 1


def category_numbers(texts: tf.Tensor, known: Sequence[str], unknown: int = -1) -> tf.Tensor:
    """int64 [batch]: where each text stands among those that are known; -1 for "", `unknown` for all others.

    Found by hashes, and compared: so there is no table, whose place in an export no frozen function could keep.

    Args:
        texts: string [batch].
        known: the categories; where one stands twice, the first counts.
        unknown: the number of a text that is not among them.
    """
    words = [word.encode() for word in dict.fromkeys(known)] or [b""]
    with tf.init_scope():  # now, not in the graph
        hashes = tf.strings.to_hash_bucket_fast(tf.constant(words), _HASHES).numpy()
    order = np.argsort(hashes)
    places = np.array([[*known].index(words[place].decode()) for place in order] if known else [0])
    if len(np.unique(hashes)) < len(words):
        raise TrainingError("two categories of a column have the same hash, which a forest cannot tell apart")
    found = tf.searchsorted(
        tf.constant(hashes[order]), tf.strings.to_hash_bucket_fast(texts, _HASHES), out_type=tf.int32
    )
    found = tf.minimum(found, len(words) - 1)
    same = tf.equal(tf.gather(tf.constant([words[place] for place in order]), found), texts)
    numbers = tf.where(same, tf.gather(tf.constant(places, tf.int64), found), tf.constant(unknown, tf.int64))
    return tf.where(tf.equal(texts, ""), tf.constant(-1, tf.int64), numbers)


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


def _next_above(threshold: float) -> float:
    """The t of `x >= t` that says `x > threshold`."""
    return float(np.nextafter(threshold, np.inf))


def _unfit(what: str, found: str, expected: str) -> TrainingError:
    return TrainingError(f"the {what} model has {found}, expected {expected}; train it so, and save it anew")


def forest_of_xgboost(model: Any) -> TreeModel:
    """A classifier of XGBoost.

    Args:
        model: an `xgboost.Booster`.

    Raises:
        TrainingError: it is no classifier of trees with a value a leaf, or does not hold the categories of a column.
    """
    content = json.loads(model.save_raw("json"))["learner"]
    booster, objective = content["gradient_booster"], content["objective"]["name"]
    if booster["name"] not in ("gbtree", "dart") or objective not in _XGBOOST_LINKS:
        raise _unfit(
            "XGBoost", f"the booster {booster['name']} and the objective {objective}",
            f"gbtree or dart, and one of {', '.join(_XGBOOST_LINKS)}",
        )  # fmt: skip
    weights = booster.get("weight_drop")
    booster = booster.get("gbtree", booster)["model"]
    outputs = max(1, int(content["learner_model_param"]["num_class"]))
    base = np.array(json.loads(f"[{content['learner_model_param']['base_score'].strip('[]')}]"), np.float32)
    bias = np.log(base / (1 - base)) if objective == "binary:logistic" else base
    names = tuple(content["feature_names"]) or tuple(map(str, range(model.num_features())))
    kinds = content["feature_types"] or ["float"] * len(names)
    categories = _xgboost_categories(booster.get("cats", {}), names, kinds)
    numbers = tuple(name for name in names if name not in categories)
    place = {name: [*known].index(name) for known in (numbers, categories) for name in known}

    trees = booster["trees"][: _xgboost_trees(model, booster)]
    growing = _Growing()
    for number, (tree, output) in enumerate(zip(trees, booster["tree_info"], strict=False)):
        if int(tree["tree_param"]["size_leaf_vector"]) > 1:
            raise _unfit("XGBoost", "leaves of several values", "multi_strategy one_output_per_tree")
        weight = weights[number] if weights else 1.0
        members = _xgboost_sets(tree)

        def grow(node: int, tree: Any = tree, weight: float = weight, members: Any = members) -> int:
            left, right = tree["left_children"][node], tree["right_children"][node]
            condition = np.float32(tree["split_conditions"][node])
            if left < 0:
                return growing.leaf([float(condition) * weight])
            column = place[names[tree["split_indices"][node]]]
            no, yes, missing = grow(left), grow(right), not tree["default_left"][node]
            if node in members:
                return growing.in_set(column, members[node], missing, yes, no)
            return growing.at_least(column, float(condition), missing, yes, no)

        growing.tree(grow(0), output)
    forest = growing.forest(np.resize(bias, outputs), [len(known) for known in categories.values()])
    return TreeModel(forest, numbers, categories, (), _XGBOOST_LINKS[objective])


_XGBOOST_LINKS = {
    "binary:logistic": sigmoid_of_scores,
    "multi:softprob": tf.nn.softmax,
    "multi:softmax": tf.nn.softmax,
}


def xgboost_iterations(model: Any) -> int:
    """How many rounds its own scikit-learn interface answers with: up to the best one of early stopping; 0 for all."""
    best = model.attr("best_iteration")
    return int(best) + 1 if best and model.attr("scikit_learn") else 0


def _xgboost_trees(model: Any, booster: Mapping[str, Any]) -> int:
    rounds = xgboost_iterations(model)
    return int(booster["iteration_indptr"][rounds]) if rounds else len(booster["trees"])


def _xgboost_categories(
    content: Mapping[str, Any], names: Sequence[str], kinds: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    found = {}
    encodings = content.get("enc") or [{}] * len(names)
    for name, kind, encoding in zip(names, kinds, encodings, strict=True):
        if kind != "c":
            continue
        values, offsets = encoding.get("values", []), encoding.get("offsets", [])
        if not values:
            raise TrainingError(
                f"the XGBoost model does not hold the categories of its column {name!r}; train it with XGBoost 3.1 or "
                "later on a pandas column of categories"
            )
        if offsets:
            joined = bytes(value % 256 for value in values)
            texts = [joined[start:end].decode() for start, end in itertools.pairwise(offsets)]
        else:
            texts = [str(value) for value in values]
        found[name] = tuple(texts)
    return found


def _xgboost_sets(tree: Mapping[str, Any]) -> dict[int, Sequence[int]]:
    """Node -> the categories that go to the right."""
    places = zip(tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True)
    return {node: tree["categories"][start : start + size] for node, start, size in places}


def forest_of_lightgbm(model: Any) -> TreeModel:
    """A classifier of LightGBM.

    Args:
        model: a `lightgbm.Booster`.

    Raises:
        TrainingError: it is no classifier, or has linear models in its leaves.
    """
    content = model.dump_model()
    objective, *parameters = content["objective"].split(" ")
    if objective not in ("binary", "multiclass") or content.get("linear_tree"):
        raise _unfit("LightGBM", f"the objective {content['objective']}", "binary or multiclass, with constant leaves")
    settings = dict(parameter.split(":") for parameter in parameters if ":" in parameter)
    slope = float(settings.get("sigmoid", 1))
    names = tuple(content["feature_names"])
    categories = _lightgbm_categories(content, names)
    numbers = tuple(name for name in names if name not in categories)
    place = {name: [*known].index(name) for known in (numbers, categories) for name in known}
    trees, outputs = content["tree_info"], content["num_tree_per_iteration"]
    share = outputs / len(trees) if content.get("average_output") else 1.0
    growing = _Growing()
    treatments = set()

    def grow(node: Mapping[str, Any]) -> int:
        if "split_feature" not in node:
            if "leaf_coeff" in node:
                raise _unfit("LightGBM", "linear models in its leaves", "linear_tree: false")
            return growing.leaf([node["leaf_value"] * share * (slope if objective == "binary" else 1.0)])
        left, right = grow(node["left_child"]), grow(node["right_child"])
        column = place[names[node["split_feature"]]]
        if node["decision_type"] == "==":
            members = [int(member) for member in node["threshold"].split("||")]
            return growing.in_set(column, members, False, yes=left, no=right)
        treatments.add(node["missing_type"])
        threshold = float(node["threshold"])
        missing = threshold < 0.0 if node["missing_type"] == "None" else not node["default_left"]
        return growing.at_least(column, _next_above(threshold), missing, yes=right, no=left)

    for number, tree in enumerate(trees):
        growing.tree(grow(tree["tree_structure"]), number % outputs)
    return TreeModel(
        growing.forest([0.0] * outputs, [len(known) for known in categories.values()]),
        numbers,
        categories,
        labels=(),
        probabilities=sigmoid_of_scores if objective == "binary" else tf.nn.softmax,
        dtype=tf.float64,
        zero_is_missing="Zero" in treatments,
    )


def _lightgbm_categories(content: Mapping[str, Any], names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    columns = [name for name in names if content["feature_infos"].get(name, {}).get("values")]
    known = content.get("pandas_categorical") or []
    if known and len(known) != len(columns):
        raise TrainingError(
            f"the LightGBM model has {len(known)} pandas columns of categories and uses {len(columns)}; train it "
            "without those that have one value only"
        )
    if not known:  # whole numbers, which are their own numbers
        known = [range(max(content["feature_infos"][name]["values"]) + 1) for name in columns]
    return {name: tuple(map(str, values)) for name, values in zip(columns, known, strict=True)}


def forest_of_sklearn(model: Any) -> TreeModel:
    """A classifier of scikit-learn that is made of trees; its columns are numbers, called by their place: "0", "1" …

    Columns that HistGradientBoosting takes as categories are categories of such numbers, called the same.

    Args:
        model: a fitted DecisionTreeClassifier, ExtraTreeClassifier, RandomForestClassifier, ExtraTreesClassifier,
            GradientBoostingClassifier or HistGradientBoostingClassifier.

    Raises:
        TrainingError: it has several outputs, or begins with another model.
    """
    kind = type(model).__name__
    if getattr(model, "n_outputs_", 1) > 1:
        raise _unfit("scikit-learn", "several labels a row", "one")
    if kind == "HistGradientBoostingClassifier":
        return _histogram_forest(model)
    names = tuple(map(str, range(model.n_features_in_)))
    growing = _Growing()
    if kind == "GradientBoostingClassifier":
        if not (model.init_ == "zero" or type(model.init_).__name__ == "DummyClassifier"):
            raise _unfit("scikit-learn", f"{type(model.init_).__name__} to begin with", "init: None")
        (bias,) = model._raw_predict_init(np.zeros([1, len(names)], np.float32))
        slope = 2.0 if model.loss == "exponential" else 1.0
        for stage in model.estimators_:
            for output, tree in enumerate(stage):
                values = tree.tree_.value[:, :, 0] * model.learning_rate * slope
                growing.tree(_sklearn_tree(tree.tree_, values, growing), output)
        link = sigmoid_of_scores if len(bias) == 1 else tf.nn.softmax
        return TreeModel(growing.forest(bias * slope, []), names, {}, (), link)
    trees = [model] if hasattr(model, "tree_") else model.estimators_
    for tree in trees:
        counts = tree.tree_.value[:, 0, :]
        growing.tree(_sklearn_tree(tree.tree_, counts / counts.sum(axis=1, keepdims=True) / len(trees), growing))
    return TreeModel(growing.forest([0.0] * len(model.classes_), []), names, {}, (), tf.identity)


def _sklearn_tree(tree: Any, values: np.ndarray, growing: _Growing) -> int:
    """The number of the root of a tree, whose nodes are added; children come behind their parent in scikit-learn."""
    numbers = np.zeros(tree.node_count, np.int64)
    for node in reversed(range(tree.node_count)):
        left, right = tree.children_left[node], tree.children_right[node]
        if left < 0:
            numbers[node] = growing.leaf(values[node])
        else:
            numbers[node] = growing.at_least(
                int(tree.feature[node]),
                _next_above(tree.threshold[node]),
                not tree.missing_go_to_left[node],
                yes=int(numbers[right]),
                no=int(numbers[left]),
            )
    return int(numbers[0])


def _as_text(known: Sequence[Any]) -> tuple[str, ...]:
    """Categories as text_column writes them; the missing one, which stands at the end, is none."""
    values = [value for value in known if not (value is None or value != value)]
    if all(isinstance(value, str) for value in values):
        return tuple(values)
    return tuple(text.decode() for text in text_column(tf.constant(np.asarray(values, np.float64))).numpy())


def _histogram_forest(model: Any) -> TreeModel:
    flags = model.is_categorical_ if model.is_categorical_ is not None else np.zeros(model.n_features_in_, bool)
    # Its own preprocessing puts the columns of categories before the others.
    order = np.concatenate([np.flatnonzero(flags), np.flatnonzero(~flags)])
    count = int(flags.sum())
    encoder = model._preprocessor.named_transformers_["encoder"] if count else None
    categories = {
        str(column): _as_text(known)
        for column, known in zip(order[:count], encoder.categories_ if encoder else [], strict=True)
    }
    growing = _Growing()
    for stage in model._predictors:
        for output, predictor in enumerate(stage):
            numbers = np.zeros(len(predictor.nodes), np.int64)
            for place in reversed(range(len(predictor.nodes))):
                node = predictor.nodes[place]
                if node["is_leaf"]:
                    numbers[place] = growing.leaf([node["value"]])
                    continue
                left, right = int(numbers[node["left"]]), int(numbers[node["right"]])
                to_left, column = bool(node["missing_go_to_left"]), int(node["feature_idx"])
                if node["is_categorical"]:
                    bits = predictor.raw_left_cat_bitsets[node["bitset_idx"]]
                    members = np.flatnonzero(np.unpackbits(bits.astype("<u4").view(np.uint8), bitorder="little"))
                    numbers[place] = growing.in_set(column, members.tolist(), to_left, yes=left, no=right)
                else:
                    threshold = _next_above(node["num_threshold"])
                    numbers[place] = growing.at_least(column - count, threshold, not to_left, yes=right, no=left)
            growing.tree(int(numbers[0]), output)
    bias = np.asarray(model._baseline_prediction, np.float64).reshape(-1)
    link = sigmoid_of_scores if len(bias) == 1 else tf.nn.softmax
    forest = growing.forest(bias, [len(known) for known in categories.values()])
    return TreeModel(forest, tuple(map(str, order[count:])), categories, (), link, dtype=tf.float64)
