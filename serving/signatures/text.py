"""The signatures of a model of texts: a text in, labels out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

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
    raw_features,
)
from serving.signatures.explain import EXPLAIN, explained_texts

# What the input is called, whatever the column is in the data.
TEXT = "text"


def served_model(
    transform: Callable[[Features], dict[str, tf.Tensor]],
    predict: Callable[[Features], tf.Tensor],
    labels: Labels,
    raw_feature_spec: FeatureSpec,
    text_column: str,
    classes: int,
    resources: Mapping[str, Any],
    explain: int | None = None,
) -> ServedModel:
    """Assemble what is exported.

    Args:
        transform: Transform's graph (trainers.splits.TransformGraph): raw features to model features.
        predict: model features to probabilities, float32 [batch, classes].
        labels: the label vocabulary.
        raw_feature_spec: the raw features as the schema has them, the label included.
        text_column: the raw feature that holds the text.
        classes: how many labels there are.
        resources: what `predict` uses of tables and assets.
        explain: how many orders of the words the signature `explain` draws; None for no such signature.
    """
    text_spec = {text_column: raw_feature_spec[text_column]}
    text_input = {TEXT: tf.TensorSpec(None, tf.string, name=TEXT)}
    examples_input = {"examples": tf.TensorSpec([None], tf.string, name="examples")}

    # One function for all signatures, as tracing a network or a tokenizer takes up to seconds.
    predict = tf.function(predict, autograph=False, reduce_retracing=True)

    @tf.function(autograph=False, reduce_retracing=True)
    def probabilities_of_text(text: tf.Tensor) -> tf.Tensor:
        return predict(transform(raw_features({text_column: text}, text_spec)))

    def serving_default(text: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"output_0": labels.answered(probabilities_of_text(text))}

    def classify(text: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = probabilities_of_text(text)
        ranked, of_ranked = labels.ranked(probabilities, classes)
        no_error = tf.fill([tf.shape(ranked)[0]], "")
        return {"labels": ranked, "probabilities": of_ranked, "error": no_error, **labels.answer_beside(probabilities)}

    def serve_examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": predict(transform(parse_examples(examples, text_spec)))}

    def transform_features(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(transform(parse_examples(examples, raw_feature_spec)))

    def explained(text: tf.Tensor) -> dict[str, tf.Tensor]:
        assert explain is not None
        return explained_texts(tf.reshape(text, [-1]), probabilities_of_text, labels, explain)

    return ServedModel(
        signatures={
            SERVING_DEFAULT: (serving_default, text_input),
            CLASSIFY: (classify, text_input),
            SERVE_EXAMPLES: (serve_examples, examples_input),
            TRANSFORM_FEATURES: (transform_features, examples_input),
            **({} if explain is None else {EXPLAIN: (explained, text_input)}),
        },
        resources={"transform": transform, "labels": labels, **resources},
    )
