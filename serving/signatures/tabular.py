"""The signatures of a model of tables: raw columns in, labels out."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

import numpy as np
import tensorflow as tf

from serving.missing_values import missing_value
from serving.signatures.common import (
    CLASSIFY,
    SERVE_EXAMPLES,
    SERVING_DEFAULT,
    TRANSFORM_FEATURES,
    Features,
    FeatureSpec,
    Labels,
    ServedModel,
    is_missing,
    parse_examples,
    raw_features,
)
from serving.signatures.explain import EXPLAIN, explained_table


def raw_list(
    values: tf.Tensor, spec: tf.io.FixedLenFeature | tf.io.VarLenFeature, separator: str
) -> tf.Tensor | tf.SparseTensor:
    """A request's column of several values in a row, [batch] or [batch, n], in the form that the schema describes.

    Args:
        values: missing ones fill rows up.
        spec: of the feature.
        separator: what stands between the values of a row where the schema has only one, of text.
    """
    batch = tf.concat([tf.shape(values), [1]], axis=0)[0]
    rows = tf.reshape(values, [batch, tf.size(values) // tf.maximum(batch, 1)])
    if isinstance(spec, tf.io.FixedLenFeature):
        one = tf.strings.reduce_join(rows, axis=1, separator=separator) if values.dtype == tf.string else rows
        return tf.reshape(one, [-1, *spec.shape])
    present = tf.where(~is_missing(rows))
    return tf.SparseTensor(present, tf.gather_nd(rows, present), tf.shape(rows, tf.int64))


def dense_rows(feature: tf.Tensor | tf.SparseTensor, spec: tf.io.FixedLenFeature | tf.io.VarLenFeature) -> tf.Tensor:
    """[batch, values]: a raw feature, missing values fill rows up."""
    if isinstance(feature, tf.SparseTensor):
        return tf.sparse.to_dense(feature, missing_value(feature.dtype.name))
    return tf.reshape(feature, [-1, math.prod(spec.shape)])


def _first_value(rows: np.ndarray, missing: float | str) -> np.ndarray:
    """[rows, 1] of [rows, values]."""
    return rows[:, :1] if rows.shape[1] else np.full([len(rows), 1], missing, rows.dtype)


def served_model(
    transform: Callable[[Features], dict[str, tf.Tensor]],
    predict: Callable[[Features], tf.Tensor],
    labels: Labels,
    raw_feature_spec: FeatureSpec,
    label_column: str,
    classes: int,
    list_separators: Mapping[str, str] = {},
    ignored: Collection[str] = (),
    explain: tuple[int, Mapping[str, np.ndarray]] | None = None,
) -> ServedModel:
    """Assemble what is exported.

    Args:
        transform: Transform's graph (trainers.splits.TransformGraph): raw features to model features.
        predict: model features to probabilities, float32 [batch, classes].
        labels: the label vocabulary.
        raw_feature_spec: the raw features as the schema has them, the label included.
        label_column: the raw feature that holds the label.
        classes: how many labels there are.
        list_separators: column -> what separates its values, of those that hold several in a row. They are taken as
            [batch] and as [batch, n], where missing values fill rows up.
        ignored: columns of which `transform` makes nothing: no signature asks for them.
        explain: how many orders of the columns the signature `explain` draws, and its background: each column of some
            rows, [rows, values], as dense_rows has it; None for no such signature.
    """
    columns = {name: spec for name, spec in raw_feature_spec.items() if name != label_column and name not in ignored}
    column_inputs = {name: tf.TensorSpec(None, spec.dtype, name=name) for name, spec in columns.items()}
    examples_input = {"examples": tf.TensorSpec([None], tf.string, name="examples")}
    # One function for all signatures: a forest takes a third of a second to trace.
    predict = tf.function(predict, autograph=False, reduce_retracing=True)

    def raw_columns(values: Features, separators: Mapping[str, str] = list_separators) -> Features:
        one_a_row = raw_features({name: values[name] for name in columns if name not in list_separators}, columns)
        return one_a_row | {
            name: raw_list(values[name], columns[name], separator) for name, separator in separators.items()
        }

    # As one function for all signatures, too.
    @tf.function(autograph=False, reduce_retracing=True)
    def probabilities_of_columns(values: Features) -> tf.Tensor:
        return predict(transform(raw_columns(values)))

    def serving_default(**values: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"output_0": labels.answered(probabilities_of_columns(values))}

    def classify(**values: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = probabilities_of_columns(values)
        ranked, of_ranked = labels.ranked(probabilities, classes)
        no_error = tf.fill([tf.shape(ranked)[0]], "")
        return {"labels": ranked, "probabilities": of_ranked, "error": no_error, **labels.answer_beside(probabilities)}

    def serve_examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": predict(transform(parse_examples(examples, columns)))}

    def transform_features(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(transform(parse_examples(examples, raw_feature_spec)))

    def explained(**values: tf.Tensor) -> dict[str, tf.Tensor]:
        assert explain is not None
        samples, background = explain
        raw = raw_columns(values)
        rows = {
            name: rows if name in list_separators else tf.reshape(rows, [-1, 1])
            for name, rows in ((name, dense_rows(raw[name], spec)) for name, spec in columns.items())
        }
        missing = {name: missing_value(spec.dtype.name) for name, spec in columns.items()}
        # Of a column that is no list the first value counts.
        others = {
            name: rows if name in list_separators else _first_value(rows, missing[name])
            for name, rows in background.items()
        }
        # Rows of lists are apart already.
        apart = dict.fromkeys(list_separators, "")

        def predicted(mixed: Mapping[str, tf.Tensor]) -> tf.Tensor:
            return predict(transform(raw_columns(mixed, apart)))

        return explained_table(rows, others, predicted, labels, samples, missing)

    return ServedModel(
        signatures={
            SERVING_DEFAULT: (serving_default, column_inputs),
            CLASSIFY: (classify, column_inputs),
            SERVE_EXAMPLES: (serve_examples, examples_input),
            TRANSFORM_FEATURES: (transform_features, examples_input),
            **({} if explain is None else {EXPLAIN: (explained, column_inputs)}),
        },
        resources={"transform": transform, "labels": labels},
    )
