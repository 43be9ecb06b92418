"""Training of a model of texts, and its export."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs

from serving.export import export
from serving.labels import VOCABULARY, Labels
from serving.signatures.raw_features import Features
from serving.signatures.text import served_model
from trainers.best_hyperparameters import BestHyperparameters
from trainers.data_fingerprint import data_fingerprint
from trainers.dense_batch import dense_batch
from trainers.encoder_classifier import encoder_classifier, ragged_tokens
from trainers.frozen_model import frozen_model
from trainers.hub_classifier import embedded_texts, hub_classifier
from trainers.leave_beside_export import leave_beside_export
from trainers.ngram_classifier import ngram_classifier, ragged_terms
from trainers.reference_predictions import reference_predictions
from trainers.text_classifier import TextClassifier
from trainers.text_embedding import TextEmbedding
from trainers.text_options import EncoderOptions, HubOptions, NgramOptions, read_trainer_options
from trainers.transform_graph import TransformGraph
from trainers.transformed_split import TransformedSplit, read_transformed_split
from trainers.tuned_options import tuned_options
from transform.text import TOKENS, WEIGHTS_OF
from transform.text_options import TextOptions


def run_fn(fn_args: FnArgs) -> None:
    """Train on the train split, export, and leave the eval split's reference predictions beside the export.

    `fn_args.custom_config` carries `preprocessing` and `trainer`, the JSON of TextOptions and TextTrainerOptions, and
    `code_fingerprint`; `fn_args.hyperparameters` what a search found.
    """
    best = BestHyperparameters.of(fn_args)
    options = tuned_options(read_trainer_options(fn_args.custom_config["trainer"]), best.values)
    preprocessing = TextOptions.model_validate_json(fn_args.custom_config["preprocessing"])
    transform_output = tft.TFTransformOutput(fn_args.transform_output)
    labels = [label.decode() for label in transform_output.vocabulary_by_name(VOCABULARY)]
    transform = TransformGraph(transform_output)
    classifier, train = train_classifier(fn_args.train_files, transform_output, transform, len(labels), options)
    evaluation = read_transformed_split(fn_args.eval_files, transform, classifier.inputs)

    _export(classifier, transform_output, transform, preprocessing, len(labels), fn_args.serving_model_dir)
    leave_beside_export(
        fn_args.serving_model_dir,
        fn_args.model_run_dir,
        model=classifier.model,
        predictions=reference_predictions(classifier.model, evaluation, labels),
        data_fingerprint=data_fingerprint(train.fingerprint, evaluation.fingerprint),
        code_fingerprint=best.code_fingerprint,
        left_out=train.left_out + evaluation.left_out,
        hyperparameters=best.values,
    )


def train_classifier(
    train_files: Sequence[str],
    transform_output: tft.TFTransformOutput,
    transform: TransformGraph,
    classes: int,
    options: NgramOptions | EncoderOptions | HubOptions,
) -> tuple[TextClassifier, TransformedSplit]:
    """The model that the options describe, trained, and what it was trained on.

    Args:
        train_files: patterns of TFRecord files.
        transform_output: Transform's vocabularies.
        transform: Transform's graph.
        classes: how many labels there are.
        options: which model, and how to train it.
    """
    embedding = TextEmbedding(options.handle) if isinstance(options, HubOptions) else None
    train = read_training_split(train_files, transform, options, embedding)
    return fit_classifier(train, transform_output, classes, options, embedding), train


def read_training_split(
    train_files: Sequence[str],
    transform: TransformGraph,
    options: NgramOptions | EncoderOptions | HubOptions,
    embedding: TextEmbedding | None,
) -> TransformedSplit:
    """The split as the model takes it; the embedding is that of HubOptions."""
    if embedding is not None:
        return read_transformed_split(train_files, transform, embedded_texts(embedding))
    inputs = ragged_terms if isinstance(options, NgramOptions) else ragged_tokens
    return read_transformed_split(train_files, transform, inputs)


def fit_classifier(
    train: TransformedSplit,
    transform_output: tft.TFTransformOutput,
    classes: int,
    options: NgramOptions | EncoderOptions | HubOptions,
    embedding: TextEmbedding | None,
) -> TextClassifier:
    """The model that the options describe, trained on what `read_training_split` has read."""
    keras.utils.set_random_seed(options.seed)
    if isinstance(options, NgramOptions):
        sizes = {kind: _size(transform_output, kind) for kind in WEIGHTS_OF if kind in train.features}
        return ngram_classifier(train, sizes, classes, options)
    if isinstance(options, EncoderOptions):
        return encoder_classifier(train, _size(transform_output, TOKENS), classes, options)
    assert embedding is not None
    return hub_classifier(train, embedding, classes, options)


def _size(transform_output: tft.TFTransformOutput, vocabulary: str) -> int:
    return int(transform_output.vocabulary_size_by_name(vocabulary))


def _served_prediction(classifier: TextClassifier) -> Callable[[Features], tf.Tensor]:
    predict = frozen_model(classifier.model)
    return lambda features: predict(dense_batch(classifier.inputs(features)))


def _export(
    classifier: TextClassifier,
    transform_output: tft.TFTransformOutput,
    transform: TransformGraph,
    preprocessing: TextOptions,
    classes: int,
    path: str,
) -> None:
    export(
        served_model(
            transform=transform,
            predict=_served_prediction(classifier),
            labels=Labels(transform_output.vocabulary_file_by_name(VOCABULARY)),
            raw_feature_spec=transform.raw_feature_spec,
            text_column=preprocessing.column,
            classes=classes,
            resources=classifier.resources,
        ),
        path,
    )
