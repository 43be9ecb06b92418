"""The signatures of a model of tables: raw columns in, labels out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import tensorflow as tf

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
    raw_feature,
)


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


def served_model(
    transform: Callable[[Features], dict[str, tf.Tensor]],
    predict: Callable[[Features], tf.Tensor],
    labels: Labels,
    raw_feature_spec: FeatureSpec,
    label_column: str,
    classes: int,
    list_separators: Mapping[str, str] = {},
    ignored: Collection[str] = (),
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
    """
    columns = {name: spec for name, spec in raw_feature_spec.items() if name != label_column and name not in ignored}
    column_inputs = {name: tf.TensorSpec(None, spec.dtype, name=name) for name, spec in columns.items()}
    examples_input = {"examples": tf.TensorSpec([None], tf.string, name="examples")}

    def raw_column(name: str, values: tf.Tensor) -> tf.Tensor | tf.SparseTensor:
        if name in list_separators:
            return raw_list(values, columns[name], list_separators[name])
        return raw_feature(values, columns[name])

    def probabilities_of_columns(values: Features) -> tf.Tensor:
        return predict(transform({name: raw_column(name, values[name]) for name in columns}))

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

    return ServedModel(
        signatures={
            SERVING_DEFAULT: (serving_default, column_inputs),
            CLASSIFY: (classify, column_inputs),
            SERVE_EXAMPLES: (serve_examples, examples_input),
            TRANSFORM_FEATURES: (transform_features, examples_input),
        },
        resources={"transform": transform, "labels": labels},
    )
