"""Pipelines of scikit-learn in core operations: preprocessing of columns, linear models, trees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from trainers.errors import TrainingError
from trainers.tabular.tree_models import category_numbers, forest_of_sklearn, number_column, text_column

# Columns side by side, string or float64 [batch] each; or numbers, float64 [batch, n].
Flow: TypeAlias = list[tf.Tensor] | tf.Tensor
Step = Callable[[Flow], Flow]


@dataclass
class _Plan:
    """What becomes of columns on their way through a pipeline, found before any row is seen.

    Attributes:
        kinds: the columns of the table -> number or category, as far as some step has said it.
    """

    kinds: dict[str, str] = field(default_factory=dict)

    def take(self, names: Sequence[str | None], kind: str) -> None:
        """Columns that a step takes as numbers or as categories; None for what an earlier step made."""
        for name in names:
            if name is not None and self.kinds.setdefault(name, kind) != kind:
                raise TrainingError(
                    f"the scikit-learn pipeline takes the column {name!r} as a number and as text; give it two columns"
                )


def _matrix(flow: Flow) -> tf.Tensor:
    return tf.stack([tf.cast(column, tf.float64) for column in flow], axis=1) if isinstance(flow, list) else flow


def _columns(flow: Flow) -> list[tf.Tensor]:
    return flow if isinstance(flow, list) else tf.unstack(flow, axis=1)


def _refused(estimator: Any, why: str) -> TrainingError:
    return TrainingError(f"the scikit-learn pipeline has {type(estimator).__name__} {why}")


Names = list[str | None]


def _transformer(estimator: Any, names: Names, plan: _Plan) -> tuple[Step, Names]:
    """A fitted transformer as a step, and the names of what comes out of it: None for what is no column of the table.

    Raises:
        TrainingError: it cannot be carried over; the message names it.
    """
    kind = type(estimator).__name__
    if estimator == "passthrough" or (kind == "FunctionTransformer" and estimator.func is None):
        return (lambda flow: flow), names
    if not type(estimator).__module__.startswith("sklearn.") or kind not in _TRANSFORMERS:
        raise _refused(estimator, f"among its steps, which cannot be carried over; use {', '.join(_TRANSFORMERS)}")
    return _TRANSFORMERS[kind](estimator, names, plan)


def _pipeline(estimator: Any, names: Names, plan: _Plan) -> tuple[Step, Names]:
    steps = []
    for _, part in estimator.steps:
        step, names = _transformer(part if part is not None else "passthrough", names, plan)
        steps.append(step)

    def apply(flow: Flow) -> Flow:
        for step in steps:
            flow = step(flow)
        return flow

    return apply, names


def _column_transformer(estimator: Any, names: Names, plan: _Plan) -> tuple[Step, Names]:
    parts: list[tuple[list[int], Step]] = []
    made: Names = []
    for name, part, _ in estimator.transformers_:
        places = [int(place) for place in estimator._transformer_to_input_indices[name]]
        if part == "drop" or not places:
            continue
        weight = (estimator.transformer_weights or {}).get(name)
        if weight is not None:
            raise _refused(estimator, "with transformer_weights, which cannot be carried over; leave them out")
        step, outputs = _transformer(part, [names[place] for place in places], plan)
        parts.append((places, step))
        made += outputs

    def apply(flow: Flow) -> Flow:
        columns = _columns(flow)
        flows = [step([columns[place] for place in places]) for places, step in parts]
        if any(column.dtype == tf.string for one in flows if isinstance(one, list) for column in one):
            return [column for one in flows for column in _columns(one)]
        return tf.concat([_matrix(one) for one in flows], axis=1)

    return apply, made


def _imputer(estimator: Any, names: Names, plan: _Plan) -> tuple[Step, Names]:
    if estimator.add_indicator:
        raise _refused(estimator, "with add_indicator, which cannot be carried over; leave it out")
    if not (estimator.missing_values is None or estimator.missing_values != estimator.missing_values):
        raise _refused(
            estimator, f"with missing_values {estimator.missing_values!r}, expected NaN; name them in data.missing"
        )
    fills = [*estimator.statistics_]
    kept = [place for place, fill in enumerate(fills) if isinstance(fill, str) or fill == fill]
    if estimator.keep_empty_features or estimator.strategy == "constant":
        kept = [*range(len(fills))]
    for name, fill in zip(names, fills, strict=True):
        plan.take([name], "category" if isinstance(fill, str) else "number")

    def apply(flow: Flow) -> Flow:
        columns = _columns(flow)
        filled = []
        for place in kept:
            column, fill = columns[place], fills[place]
            if isinstance(fill, str):
                filled.append(tf.where(tf.equal(column, ""), fill, column))
            else:
                number = 0.0 if fill != fill else float(fill)
                filled.append(tf.where(tf.math.is_nan(column), tf.constant(number, tf.float64), column))
        return filled

    return apply, [names[place] for place in kept]


def _scaler(shift: Callable[[Any], Any], factor: Callable[[Any], Any]) -> Any:
    """A transformer that takes something off, and then divides."""

    def plan_step(estimator: Any, names: Names, plan: _Plan) -> tuple[Step, Names]:
        plan.take(names, "number")
        offset, divisor = shift(estimator), factor(estimator)

        def apply(flow: Flow) -> Flow:
            values = _matrix(flow)
            values = values if offset is None else values - np.asarray(offset, np.float64)
            return values if divisor is None else values / np.asarray(divisor, np.float64)

        return apply, [None] * len(names)

    return plan_step


def _min_max(estimator: Any, names: Names, plan: _Plan) -> tuple[Step, Names]:
    plan.take(names, "number")

    def apply(flow: Flow) -> Flow:
        values = _matrix(flow) * estimator.scale_ + estimator.min_
        return tf.clip_by_value(values, *map(float, estimator.feature_range)) if estimator.clip else values

    return apply, [None] * len(names)


def _encoded(estimator: Any, names: Names, plan: _Plan) -> Callable[[Flow], list[tf.Tensor]]:
    """Columns -> int64 [batch] each: the number of a category, -1 for an unknown one.

    A missing value has the number of the category NaN or None, where there is one.
    """
    if getattr(estimator, "_infrequent_enabled", False):
        raise _refused(estimator, "with min_frequency or max_categories, which cannot be carried over; leave them out")
    lookups = []
    for name, known in zip(names, estimator.categories_, strict=True):
        absent = [place for place, value in enumerate(known) if value is None or value != value]
        values = [value for value in known if not (value is None or value != value)]
        if any(isinstance(value, bool | np.bool_) for value in values):
            raise _refused(estimator, f"with true and false as categories of {name!r}; make them text before")
        text = any(isinstance(value, str) for value in values)
        plan.take([name], "category" if text else "number")
        lookups.append((values, text, absent[0] if absent else -1))

    def apply(flow: Flow) -> list[tf.Tensor]:
        found = []
        for column, (values, text, absent) in zip(_columns(flow), lookups, strict=True):
            if text:
                numbers, missing = category_numbers(column, values), tf.equal(column, "")
            else:
                ascending = tf.constant(np.asarray(values, np.float64))
                place = tf.minimum(tf.searchsorted(ascending, column, out_type=tf.int64), len(values) - 1)
                numbers = tf.where(tf.equal(tf.gather(ascending, place), column), place, -1)
                missing = tf.math.is_nan(column)
            found.append(tf.where(missing, tf.constant(absent, tf.int64), numbers))
        return found

    return apply


def _one_hot(estimator: Any, names: Names, plan: _Plan) -> tuple[Step, Names]:
    encode = _encoded(estimator, names, plan)
    sizes = [len(known) for known in estimator.categories_]
    dropped = estimator.drop_idx_ if estimator.drop_idx_ is not None else [None] * len(sizes)
    kept = [[place for place in range(size) if place != without] for size, without in zip(sizes, dropped, strict=True)]

    def apply(flow: Flow) -> Flow:
        hot = [
            tf.cast(tf.equal(numbers[:, None], np.array(places, np.int64)), tf.float64)
            for numbers, places in zip(encode(flow), kept, strict=True)
        ]
        return tf.concat(hot, axis=1)

    return apply, [None] * sum(map(len, kept))


def _ordinal(estimator: Any, names: Names, plan: _Plan) -> tuple[Step, Names]:
    encode = _encoded(estimator, names, plan)
    unknown = np.nan if estimator.unknown_value is None else float(estimator.unknown_value)
    missing = {
        column: place
        for column, known in enumerate(estimator.categories_)
        for place, value in enumerate(known)
        if value is None or value != value
    }

    def apply(flow: Flow) -> Flow:
        values = []
        for column, numbers in enumerate(encode(flow)):
            known = tf.cast(numbers, tf.float64)
            if column in missing:
                absent = tf.constant(float(estimator.encoded_missing_value), tf.float64)
                known = tf.where(tf.equal(numbers, missing[column]), absent, known)
            values.append(tf.where(numbers < 0, tf.constant(unknown, tf.float64), known))
        return tf.stack(values, axis=1)

    return apply, [None] * len(names)


_TRANSFORMERS: dict[str, Callable[[Any, Names, _Plan], tuple[Step, Names]]] = {
    "Pipeline": _pipeline,
    "ColumnTransformer": _column_transformer,
    "SimpleImputer": _imputer,
    "StandardScaler": _scaler(lambda fitted: fitted.mean_ if fitted.with_mean else None, lambda fitted: fitted.scale_),
    "RobustScaler": _scaler(
        lambda fitted: fitted.center_ if fitted.with_centering else None,
        lambda fitted: fitted.scale_ if fitted.with_scaling else None,
    ),
    "MaxAbsScaler": _scaler(lambda fitted: None, lambda fitted: fitted.scale_),
    "MinMaxScaler": _min_max,
    "OneHotEncoder": _one_hot,
    "OrdinalEncoder": _ordinal,
}


Classifier = Callable[[Flow], tf.Tensor]


def _linear(estimator: Any, names: Names, plan: _Plan) -> Classifier:
    plan.take(names, "number")
    kind = type(estimator).__name__
    if kind == "SGDClassifier" and estimator.loss != "log_loss":
        raise _refused(estimator, f"with the loss {estimator.loss}, which has no probabilities; use loss: log_loss")
    binary = len(estimator.classes_) == 2
    if kind in ("LogisticRegression", "LogisticRegressionCV"):
        each = estimator.multi_class in ("ovr", "warn") or (
            estimator.multi_class in ("auto", "deprecated") and (binary or estimator.solver == "liblinear")
        )
    else:
        each = kind == "SGDClassifier" or binary
    weights, bias = estimator.coef_.T.astype(np.float64), np.asarray(estimator.intercept_, np.float64)

    def apply(flow: Flow) -> tf.Tensor:
        logits = tf.linalg.matmul(_matrix(flow), weights) + bias
        if binary:
            return tf.sigmoid(logits * [-1.0, 1.0]) if each else tf.nn.softmax(logits * [-1.0, 1.0])
        if not each:
            return tf.nn.softmax(logits)
        shares = tf.sigmoid(logits)
        total = tf.reduce_sum(shares, axis=1, keepdims=True)
        return tf.where(total > 0, shares / total, tf.ones_like(shares) / len(estimator.classes_))

    return apply


def _trees(estimator: Any, names: Names, plan: _Plan) -> Classifier:
    model = forest_of_sklearn(estimator)
    plan.take([names[int(place)] for place in model.numbers], "number")
    if model.categories:
        encoder = estimator._preprocessor.named_transformers_["encoder"]
        for place, known in zip(model.categories, encoder.categories_, strict=True):
            text = any(isinstance(value, str) for value in known)
            plan.take([names[int(place)]], "category" if text else "number")

    def apply(flow: Flow) -> tf.Tensor:
        return model.predict_columns({str(place): column for place, column in enumerate(_columns(flow))})

    return apply


_CLASSIFIERS: dict[str, Callable[[Any, Names, _Plan], Classifier]] = {
    **dict.fromkeys(
        ("LogisticRegression", "LogisticRegressionCV", "SGDClassifier", "LinearDiscriminantAnalysis"), _linear
    ),
    **dict.fromkeys(
        (
            "DecisionTreeClassifier",
            "ExtraTreeClassifier",
            "RandomForestClassifier",
            "ExtraTreesClassifier",
            "GradientBoostingClassifier",
            "HistGradientBoostingClassifier",
        ),
        _trees,
    ),
}


@dataclass(frozen=True)
class SklearnModel:
    """A classifier of scikit-learn in core operations.

    Attributes:
        columns: what it takes, in its order -> number or category.
        labels: in the order of the probabilities.
        predict: columns as a table has them, [batch] each -> float32 [batch, classes].
    """

    columns: Mapping[str, str]
    labels: tuple[str, ...]
    predict: Callable[[Mapping[str, tf.Tensor]], tf.Tensor]


def sklearn_model(model: Any, columns: Sequence[str]) -> SklearnModel:
    """Carry a fitted pipeline, or a classifier alone, over.

    Args:
        model: of scikit-learn.
        columns: the names of its columns, where it does not know them.

    Raises:
        TrainingError: a part cannot be carried over, or the names are missing; the message says which.
    """
    known = getattr(model, "feature_names_in_", None)
    names = [str(name) for name in known] if known is not None else [*columns]
    if len(names) != model.n_features_in_:
        raise TrainingError(
            f"the scikit-learn model knows its {model.n_features_in_} columns by number only; give trainer.columns, "
            "their names in its order"
        )
    parts = [part for _, part in model.steps] if type(model).__name__ == "Pipeline" else [model]
    *steps, classifier = parts
    kind = type(classifier).__name__
    if not type(classifier).__module__.startswith("sklearn.") or kind not in _CLASSIFIERS:
        raise _refused(classifier, f"at its end, which cannot be carried over; use one of {', '.join(_CLASSIFIERS)}")
    plan, flows = _Plan(), []
    current: Names = [*names]
    for part in steps:
        step, current = _transformer(part if part is not None else "passthrough", current, plan)
        flows.append(step)
    classify = _CLASSIFIERS[kind](classifier, current, plan)
    kinds = {name: plan.kinds.get(name, "number") for name in names}

    def predict(table: Mapping[str, tf.Tensor]) -> tf.Tensor:
        flow: Flow = [
            text_column(table[name]) if kind == "category" else number_column(table[name], tf.float64)
            for name, kind in kinds.items()
        ]
        for step in flows:
            flow = step(flow)
        return tf.cast(classify(flow), tf.float32)

    return SklearnModel(kinds, tuple(str(label) for label in classifier.classes_), predict)
