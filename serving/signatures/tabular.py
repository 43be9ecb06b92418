"""The signatures of a model of tables: raw columns in, labels out."""

from __future__ import annotations

from collections.abc import Callable

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
    parse_examples,
    raw_feature,
)


def served_model(
    transform: Callable[[Features], dict[str, tf.Tensor]],
    predict: Callable[[Features], tf.Tensor],
    labels: Labels,
    raw_feature_spec: FeatureSpec,
    label_column: str,
    classes: int,
) -> ServedModel:
    """Assemble what is exported.

    Args:
        transform: Transform's graph (trainers.splits.TransformGraph): raw features to model features.
        predict: model features to probabilities, float32 [batch, classes].
        labels: the label vocabulary.
        raw_feature_spec: the raw features as the schema has them, the label included.
        label_column: the raw feature that holds the label.
        classes: how many labels there are.
    """
    columns = {name: spec for name, spec in raw_feature_spec.items() if name != label_column}
    column_inputs = {name: tf.TensorSpec(None, spec.dtype, name=name) for name, spec in columns.items()}
    examples_input = {"examples": tf.TensorSpec([None], tf.string, name="examples")}

    def probabilities_of_columns(values: Features) -> tf.Tensor:
        return predict(transform({name: raw_feature(values[name], spec) for name, spec in columns.items()}))

    def serving_default(**values: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"output_0": labels.best(probabilities_of_columns(values))}

    def classify(**values: tf.Tensor) -> dict[str, tf.Tensor]:
        ranked, probabilities = labels.ranked(probabilities_of_columns(values), classes)
        return {"labels": ranked, "probabilities": probabilities, "error": tf.fill([tf.shape(ranked)[0]], "")}

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
