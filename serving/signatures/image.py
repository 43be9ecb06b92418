"""The signatures of a model of photos: encoded files in, labels out."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from serving.export import CLASSIFY, SERVE_EXAMPLES, SERVING_DEFAULT, TRANSFORM_FEATURES, ServedModel
from serving.image_files import image_files
from serving.labels import Labels
from serving.signatures.raw_features import Features, FeatureSpec, parse_examples, raw_feature

# The raw feature with the encoded file, which is also the name of its pixels among the transformed features.
IMAGE = "image"
# Among the transformed features: "" or why a photo cannot be used.
ERROR = "error"
# How many labels `classify` ranks, where there are so many.
RANKED = 5


def served_model(
    transform: Callable[[Features], dict[str, tf.Tensor]],
    predict: Callable[[Features], tf.Tensor],
    labels: Labels,
    raw_feature_spec: FeatureSpec,
    label_column: str,
    classes: int,
) -> ServedModel:
    """Assemble what is exported; a photo that cannot be used has the label "" and the probability 0 everywhere.

    Args:
        transform: Transform's graph (trainers.transform_graph): raw features to model features.
        predict: model features to probabilities, float32 [batch, classes].
        labels: the label vocabulary.
        raw_feature_spec: the raw features as the schema has them, the label included.
        label_column: the raw feature that holds the label.
        classes: how many labels there are.
    """
    served_features = {IMAGE: raw_feature_spec[IMAGE]}
    learned_features = {name: raw_feature_spec[name] for name in (IMAGE, label_column) if name in raw_feature_spec}
    text_or_bytes = {"image": tf.TensorSpec([None], tf.string, name="image")}
    only_bytes = {"image_bytes": tf.TensorSpec([None], tf.string, name="image_bytes")}
    examples_input = {"examples": tf.TensorSpec([None], tf.string, name="examples")}

    def probabilities_and_errors(raw: Features) -> tuple[tf.Tensor, tf.Tensor]:
        features = transform(raw)
        usable = tf.equal(features[ERROR], "")
        return tf.where(usable[:, None], predict(features), 0.0), features[ERROR]

    def as_raw_features(files: tf.Tensor) -> Features:
        return {IMAGE: raw_feature(files, raw_feature_spec[IMAGE])}

    def serving_default(image: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities, errors = probabilities_and_errors(as_raw_features(image_files(image)))
        return {"output_0": tf.where(tf.equal(errors, ""), labels.best(probabilities), "")}

    def classify(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities, errors = probabilities_and_errors(as_raw_features(image_bytes))
        ranked, ranked_probabilities = labels.ranked(probabilities, min(RANKED, classes))
        usable = tf.equal(errors, "")[:, None]
        return {"labels": tf.where(usable, ranked, ""), "probabilities": ranked_probabilities, "error": errors}

    def serve_examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities, _ = probabilities_and_errors(parse_examples(examples, served_features))
        return {"probabilities": probabilities}

    def transform_features(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(transform(parse_examples(examples, learned_features)))

    return ServedModel(
        signatures={
            SERVING_DEFAULT: (serving_default, text_or_bytes),
            CLASSIFY: (classify, only_bytes),
            SERVE_EXAMPLES: (serve_examples, examples_input),
            TRANSFORM_FEATURES: (transform_features, examples_input),
        },
        resources={"transform": transform, "labels": labels},
    )
