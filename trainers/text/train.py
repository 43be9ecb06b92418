"""Training of a model of texts, its export, and the search for its options: run_fn and tuner_fn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import keras
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from serving.reference_predictions import with_answers
from serving.signatures.common import VOCABULARY, Features, Labels, export
from serving.signatures.text import served_model
from trainers.artifacts import (
    frozen_model,
    learning_curves,
    predict_columns,
    predict_split,
    unknown_rule,
    write_artifacts,
)
from trainers.fitting import steps_per_execution
from trainers.options import ServingOptions, TunerOptions, tuned_options
from trainers.splits import (
    Column,
    TransformedSplit,
    TransformGraph,
    data_fingerprint,
    dense_batch,
    read_transformed_split,
    shuffled_batches,
    training_weights,
)
from trainers.text.encoders import PIECES, in_chunks
from trainers.text.models import TEXT_MODELS, VECTORS, Pretrained, TextClassifier, pretrained_of
from trainers.text.options import TextModelOptions, read_trainer_options
from trainers.tuning import BestHyperparameters, TrialOutcome, hyperparameter_search, tuning_split
from trainers.warm_start import MeaningOfWeights, start_warm, write_warm_start
from transform.options import TextOptions
from transform.text import TOKENS, WEIGHTS_OF


def fit_text(classifier: TextClassifier, train: TransformedSplit, options: TextModelOptions) -> None:
    """Train the members side by side, in place, by Adam with a cosine-decayed step size.

    Args:
        classifier: the model and its members.
        train: the training split, with the model's inputs as features.
        options: for how long, and how fast.
    """
    model = classifier.model
    if classifier.fixed is not None:
        classifier, train = _over_vectors(classifier, train)
    batch_size = min(options.batch_size, len(train.labels))
    steps = -(-len(train.labels) // batch_size)
    step_size = _step_size(options, steps * options.epochs)
    together = keras.Model(classifier.model.input, keras.ops.stack(classifier.members, axis=1))
    together.compile(
        optimizer=keras.optimizers.Adam(step_size),
        loss=_sum_of_losses,
        jit_compile=False,
        steps_per_execution=steps_per_execution(steps),
    )
    weights = training_weights(train, classifier.model.output.shape[1], options.class_weights == "balanced")
    model.history = together.fit(
        shuffled_batches((train.features, train.labels), batch_size, options.seed, weights=weights),
        steps_per_epoch=steps,
        epochs=options.epochs,
        shuffle=False,  # the dataset is
        verbose=0,
    )


def _sum_of_losses(labels: keras.KerasTensor, probabilities: keras.KerasTensor) -> keras.KerasTensor:
    of_each = keras.ops.tile(keras.ops.reshape(labels, [-1, 1]), [1, probabilities.shape[1]])
    return keras.ops.sum(keras.losses.sparse_categorical_crossentropy(of_each, probabilities), axis=1)


def _step_size(options: TextModelOptions, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    growing = round(steps * options.warm_up)
    if not growing:
        return keras.optimizers.schedules.CosineDecay(options.learning_rate, steps)
    return keras.optimizers.schedules.CosineDecay(
        0.0, steps - growing, warmup_target=options.learning_rate, warmup_steps=growing
    )


def _over_vectors(classifier: TextClassifier, train: TransformedSplit) -> tuple[TextClassifier, TransformedSplit]:
    """The head alone, and the vectors that it learns from, made once."""
    assert classifier.fixed is not None and classifier.head is not None
    vectors = predict_columns(classifier.fixed, train.features, classifier.chunk)
    classifier.head.get_layer("vector_norm").adapt(vectors)
    head = replace(classifier, model=classifier.head, members=[classifier.head.output], fixed=None)
    return head, replace(train, features={VECTORS: vectors})


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
    handle = options.embedding_handle
    embedding = pretrained_of(options)
    train = read_training_split(fn_args.train_files, transform, options, embedding)
    terms = known_terms(transform_output, train.features)
    classifier = untrained_classifier(train, terms, len(labels), options, embedding)
    evaluation = read_transformed_split(fn_args.eval_files, transform, classifier.inputs)

    meaning = MeaningOfWeights.of(transform, preprocessing, labels, terms, handle)
    start = start_warm(classifier.model, meaning, fn_args.base_model) if options.warm_start else ""
    fit_text(classifier, train, options)
    predictions = predict_split(classifier.model, evaluation, labels, classifier.chunk)
    unknown = unknown_rule(ServingOptions.of(fn_args.custom_config), labels, predictions, evaluation.truth)
    vocabulary = Labels(transform_output.vocabulary_file_by_name(VOCABULARY), unknown=unknown)
    _export(classifier, vocabulary, transform, preprocessing, len(labels), fn_args.serving_model_dir)
    if options.warm_start:
        write_warm_start(fn_args.serving_model_dir, classifier.model, meaning)
    write_artifacts(
        fn_args.serving_model_dir,
        fn_args.model_run_dir,
        model=classifier.model,
        predictions=with_answers(predictions, labels, unknown=unknown),
        data_fingerprint=data_fingerprint(train.fingerprint, evaluation.fingerprint),
        code_fingerprint=best.code_fingerprint,
        left_out=train.left_out + evaluation.left_out,
        hyperparameters=best.values,
        warm_start=start,
        unknown=unknown,
    )


def read_training_split(
    train_files: Sequence[str],
    transform: TransformGraph,
    options: TextModelOptions,
    embedding: Pretrained | None = None,
) -> TransformedSplit:
    """The split as the model takes it; the embedding is what pretrained_of has for the options."""
    return read_transformed_split(train_files, transform, TEXT_MODELS[options.model].inputs(embedding, options))


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
    options: TextModelOptions,
    embedding: Pretrained | None,
) -> TextClassifier:
    """The model that the options describe, for what `read_training_split` has read and its `known_terms`."""
    keras.utils.set_random_seed(options.seed)
    sizes = {vocabulary: len(known) for vocabulary, known in terms.items()}
    return TEXT_MODELS[options.model].build(train, sizes, classes, options, embedding)


def fit_classifier(
    train: TransformedSplit,
    transform_output: tft.TFTransformOutput,
    classes: int,
    options: TextModelOptions,
    embedding: Pretrained | None = None,
) -> TextClassifier:
    """The model that the options describe, trained from scratch on what `read_training_split` has read."""
    terms = known_terms(transform_output, train.features)
    classifier = untrained_classifier(train, terms, classes, options, embedding)
    fit_text(classifier, train, options)
    return classifier


def _served_prediction(classifier: TextClassifier) -> Callable[[Features], tf.Tensor]:
    predict = frozen_model(classifier.model)
    chunk, classes = classifier.chunk, classifier.model.output.shape[1]
    if chunk is not None:
        return lambda features: in_chunks(
            lambda pieces: predict({PIECES: pieces}), classifier.inputs(features)[PIECES], classes, chunk
        )
    return lambda features: predict(dense_batch(classifier.inputs(features)))


def _export(
    classifier: TextClassifier,
    labels: Labels,
    transform: TransformGraph,
    preprocessing: TextOptions,
    classes: int,
    path: str,
) -> None:
    export(
        served_model(
            transform=transform,
            predict=_served_prediction(classifier),
            labels=labels,
            raw_feature_spec=transform.raw_feature_spec,
            text_column=preprocessing.column,
            classes=classes,
            resources=classifier.resources,
        ),
        path,
    )


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Train on a part of the train split, and compare on the rest of it.

    `fn_args.custom_config` carries `trainer` and `tuner`, the JSON of TextTrainerOptions and TunerOptions.
    """
    options = read_trainer_options(fn_args.custom_config["trainer"])
    tuner = TunerOptions.model_validate_json(fn_args.custom_config["tuner"])
    transform_output = tft.TFTransformOutput(fn_args.transform_graph_path)
    labels = [label.decode() for label in transform_output.vocabulary_by_name(VOCABULARY)]
    embedding = pretrained_of(options)
    train, held_out = tuning_split(
        read_training_split(fn_args.train_files, TransformGraph(transform_output), options, embedding), tuner
    )

    def trial(candidate: TextModelOptions, _: Path) -> TrialOutcome:
        classifier = fit_classifier(train, transform_output, len(labels), candidate, embedding)
        predictions = predict_split(classifier.model, held_out, labels, classifier.chunk)
        return TrialOutcome(learning_curves(classifier.model), held_out.labels, predictions.probabilities)

    return hyperparameter_search(trial, options, tuner, fn_args.working_dir)
