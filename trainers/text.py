"""Training of a model of texts, and its export."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs

from serving.export import export
from serving.labels import VOCABULARY, Labels
from serving.signatures.text import served_model
from trainers.data_fingerprint import data_fingerprint
from trainers.frozen_model import frozen_model
from trainers.leave_beside_export import leave_beside_export
from trainers.reference_predictions import reference_predictions
from trainers.shuffled_batches import shuffled_batches
from trainers.text_options import TextTrainerOptions
from trainers.transformed_split import TransformedSplit, read_transformed_split
from transform.term_vocabulary import TERM_VOCABULARY
from transform.text import TERMS, WEIGHTS
from transform.text_options import TextOptions

# The linear weights of tf-idf grow to about 10; Adam moves every number by its step size, so these are kept smaller.
LINEAR_SCALE = 20.0


def run_fn(fn_args: FnArgs) -> None:
    """Train on the train split, export, and leave the eval split's reference predictions beside the export.

    `fn_args.custom_config` carries `preprocessing` and `trainer`, the JSON of TextOptions and TextTrainerOptions, and
    `code_fingerprint`.
    """
    options = TextTrainerOptions.model_validate_json(fn_args.custom_config["trainer"])
    preprocessing = TextOptions.model_validate_json(fn_args.custom_config["preprocessing"])
    transform_output = tft.TFTransformOutput(fn_args.transform_output)
    labels = [label.decode() for label in transform_output.vocabulary_by_name(VOCABULARY)]
    train = read_transformed_split(fn_args.train_files, transform_output)
    evaluation = read_transformed_split(fn_args.eval_files, transform_output)

    keras.utils.set_random_seed(options.seed)
    model = build_model(transform_output.vocabulary_size_by_name(TERM_VOCABULARY), len(labels), options)
    fit(model, train, options)
    _export(model, transform_output, preprocessing, len(labels), fn_args.serving_model_dir)
    leave_beside_export(
        fn_args.serving_model_dir,
        model=model,
        predictions=reference_predictions(model, evaluation, labels),
        data_fingerprint=data_fingerprint(train.fingerprint, evaluation.fingerprint),
        code_fingerprint=fn_args.custom_config["code_fingerprint"],
        left_out=train.left_out + evaluation.left_out,
    )


def build_model(vocabulary_size: int, classes: int, options: TextTrainerOptions) -> keras.Model:
    """A Keras model from the features of transform/text.py to probabilities, float32 [batch, classes].

    A text without a known term gets what the biases say: always the same answer, which leans to the frequent classes.
    """
    terms = keras.Input([None], name=TERMS, dtype="int64")
    weights = keras.Input([None], name=WEIGHTS, dtype="float32")
    linear = keras.layers.Embedding(
        vocabulary_size + 1,
        classes,
        embeddings_initializer="zeros",
        embeddings_regularizer=keras.regularizers.L2(options.l2),
    )
    embedding = keras.layers.Embedding(vocabulary_size + 1, options.embedding_width)
    linear_sum = weighted_sum(linear(terms), keras.layers.Dropout(options.term_dropout)(weights))
    hidden = weighted_sum(embedding(terms), keras.layers.Dropout(options.dropout)(weights))
    hidden = keras.layers.Dropout(options.dropout)(hidden)
    hidden = keras.layers.Dense(options.hidden_units, activation="relu")(hidden)
    hidden = keras.layers.Dropout(options.dropout)(hidden)
    logits = keras.layers.add([linear_sum * LINEAR_SCALE, keras.layers.Dense(classes)(hidden)])
    return keras.Model({TERMS: terms, WEIGHTS: weights}, keras.layers.Softmax()(logits))


def weighted_sum(vectors: keras.KerasTensor, weights: keras.KerasTensor) -> keras.KerasTensor:
    """[batch, width]: the sum over n of vectors [batch, n, width], each times its weight in [batch, n]."""
    return keras.ops.einsum("bnd,bn->bd", vectors, weights)


def fit(model: keras.Model, train: TransformedSplit, options: TextTrainerOptions) -> None:
    """Train in place, by Adam with a cosine-decayed step size."""
    batch_size = min(options.batch_size, len(train.labels))
    steps = -(-len(train.labels) // batch_size)
    step_size = keras.optimizers.schedules.CosineDecay(options.learning_rate, steps * options.epochs)
    model.compile(
        optimizer=keras.optimizers.Adam(step_size),
        loss="sparse_categorical_crossentropy",
        jit_compile=False,
        steps_per_execution=min(steps, 32),
    )
    model.fit(
        shuffled_batches((without_padding(train.features), train.labels), batch_size, options.seed),
        steps_per_epoch=steps,
        epochs=options.epochs,
        shuffle=False,  # the dataset is
        verbose=0,
    )


def without_padding(features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The features cut to the longest text: what is 0 in every row changes nothing, and costs time."""
    longest = max(1, int((features[TERMS] > 0).sum(axis=1).max(initial=0)))
    return {name: features[name][:, :longest] for name in (TERMS, WEIGHTS)}


def _export(
    model: keras.Model, transform_output: tft.TFTransformOutput, preprocessing: TextOptions, classes: int, path: str
) -> None:
    export(
        served_model(
            transform=transform_output.transform_features_layer(),
            predict=frozen_model(model),
            labels=Labels(transform_output.vocabulary_file_by_name(VOCABULARY)),
            raw_feature_spec=transform_output.raw_feature_spec(),
            text_column=preprocessing.column,
            classes=classes,
        ),
        path,
    )
