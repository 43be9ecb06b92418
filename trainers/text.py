"""Training of a model of texts, and its export."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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
from trainers.dense_batch import Column, dense_batch
from trainers.encoder_classifier import encoder_classifier, ragged_tokens
from trainers.fit_text import fit_text
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
from trainers.warm_start import MeaningOfWeights, leave_for_warm_start, start_warm
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
    handle = options.handle if isinstance(options, HubOptions) else ""
    embedding = TextEmbedding(handle) if handle else None
    train = read_training_split(fn_args.train_files, transform, options, embedding)
    terms = known_terms(transform_output, train.features)
    classifier = untrained_classifier(train, terms, len(labels), options, embedding)
    evaluation = read_transformed_split(fn_args.eval_files, transform, classifier.inputs)

    meaning = MeaningOfWeights.of(transform, preprocessing, labels, terms, handle)
    start = start_warm(classifier.model, meaning, fn_args.base_model) if options.warm_start else ""
    fit_text(classifier, train, options)
    _export(classifier, transform_output, transform, preprocessing, len(labels), fn_args.serving_model_dir)
    if options.warm_start:
        leave_for_warm_start(fn_args.serving_model_dir, classifier.model, meaning)
    leave_beside_export(
        fn_args.serving_model_dir,
        fn_args.model_run_dir,
        model=classifier.model,
        predictions=reference_predictions(classifier.model, evaluation, labels),
        data_fingerprint=data_fingerprint(train.fingerprint, evaluation.fingerprint),
        code_fingerprint=best.code_fingerprint,
        left_out=train.left_out + evaluation.left_out,
        hyperparameters=best.values,
        warm_start=start,
    )


def read_training_split(
    train_files: Sequence[str],
    transform: TransformGraph,
    options: NgramOptions | EncoderOptions | HubOptions,
    embedding: TextEmbedding | None = None,
) -> TransformedSplit:
    """The split as the model takes it; the embedding is that of HubOptions."""
    if embedding is not None:
        return read_transformed_split(train_files, transform, embedded_texts(embedding))
    inputs = ragged_terms if isinstance(options, NgramOptions) else ragged_tokens
    return read_transformed_split(train_files, transform, inputs)


def known_terms(transform_output: tft.TFTransformOutput, features: Mapping[str, Column]) -> dict[str, list[str]]:
    """The terms of each vocabulary that the features are of, in the order of their numbers; words first."""
    return {
        vocabulary: [line.decode().partition(" ")[2] for line in transform_output.vocabulary_by_name(vocabulary)]
        for vocabulary in (*WEIGHTS_OF, TOKENS)
        if vocabulary in features
    }


def untrained_classifier(
    train: TransformedSplit,
    terms: Mapping[str, Sequence[str]],
    classes: int,
    options: NgramOptions | EncoderOptions | HubOptions,
    embedding: TextEmbedding | None,
) -> TextClassifier:
    """The model that the options describe, for what `read_training_split` has read and its `known_terms`."""
    keras.utils.set_random_seed(options.seed)
    if isinstance(options, NgramOptions):
        sizes = {vocabulary: len(known) for vocabulary, known in terms.items()}
        return ngram_classifier(train, sizes, classes, options)
    if isinstance(options, EncoderOptions):
        return encoder_classifier(len(terms[TOKENS]), classes, options)
    assert embedding is not None
    return hub_classifier(embedding, classes, options)


def fit_classifier(
    train: TransformedSplit,
    transform_output: tft.TFTransformOutput,
    classes: int,
    options: NgramOptions | EncoderOptions | HubOptions,
    embedding: TextEmbedding | None = None,
) -> TextClassifier:
    """The model that the options describe, trained from scratch on what `read_training_split` has read."""
    terms = known_terms(transform_output, train.features)
    classifier = untrained_classifier(train, terms, classes, options, embedding)
    fit_text(classifier, train, options)
    return classifier


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
