"""Training of a model of texts, its export, and the search for its options: run_fn and tuner_fn."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from serving.reference_predictions import with_answers
from serving.signatures.common import VOCABULARY, Features, Labels, export
from serving.signatures.explain import TEXT_SAMPLES
from serving.signatures.text import served_model
from trainers.artifacts import (
    calibration,
    frozen_model,
    learning_curves,
    predict_columns,
    predict_rows,
    predict_split,
    unknown_rule,
    write_artifacts,
)
from trainers.blending import cross_entropies, figures, mean_and_error, stratified_folds
from trainers.devices import ONE_DEVICE, Devices, training_devices, worker_places
from trainers.errors import TrainingError
from trainers.fitting import resumable_fit, steps_per_execution
from trainers.options import ServingOptions, TunerOptions, tuned_options
from trainers.row_store import RowMemory, RowStore, files_fingerprint, row_memory, sampled
from trainers.splits import (
    TransformedSplit,
    TransformGraph,
    data_fingerprint,
    dense_batch,
    shuffled_batches,
    training_weights,
)
from trainers.text.encoders import in_chunks
from trainers.text.models import TEXT_MODELS, VECTORS, Pretrained, TextClassifier, pretrained_of, set_ratios
from trainers.text.options import AutoOptions, TextModelOptions, TrainedOptions, read_trainer_options
from trainers.tuning import BestHyperparameters, TrialOutcome, hyperparameter_search, rows_of, tuning_split
from trainers.warm_start import MeaningOfWeights, start_warm, write_warm_start
from transform.options import TextOptions
from transform.text import TOKENS, WEIGHTS_OF


def fit_text(
    classifier: TextClassifier,
    train: TransformedSplit | RowStore,
    options: TextModelOptions,
    unfinished: Path | None = None,
) -> None:
    """Train the members side by side, in place, by Adam with a cosine-decayed step size; what is wrapped stays.

    Args:
        classifier: the model and its members.
        train: the training split, with the model's inputs as features.
        options: for how long, and how fast.
        unfinished: of a store, the folder in which a training that was killed left how far it was.
    """
    if options.model == "wrap":
        return
    model = classifier.model
    if classifier.fixed is not None and isinstance(train, TransformedSplit):
        classifier, train = _over_vectors(classifier, train)
    count = train.rows if isinstance(train, RowStore) else len(train.labels)
    batch_size = min(options.batch_size, count)
    steps = options.steps_per_epoch(count)
    devices = training_devices(options)
    together = _side_by_side(classifier)
    learner = _compiled(devices.learner(together), options, steps, devices)
    balanced = options.class_weights == "balanced"
    if isinstance(train, RowStore):
        store = train
        assert unfinished is not None, "a store has a folder beside it"
        if classifier.fixed is not None:
            # The vectors of all would take the memory that the rows are kept out of: each epoch makes them anew.
            _adapt(classifier, store.read(0, min(count, _ADAPTED_TO)))
        resumable_fit(
            learner,
            lambda first: devices.batches(
                store.batches(batch_size, options.seed, first, balanced=balanced, by_length=True)
            ),
            steps,
            options.epochs,
            unfinished,
        )
        devices.take_back(together, learner)
        model.history = getattr(together, "history", None)
        return
    model.history = _fit_in_memory(learner, train, options, steps, devices)
    devices.take_back(together, learner)


def _side_by_side(classifier: TextClassifier) -> keras.Model:
    """All members, float32 [batch, members, classes]."""
    return keras.Model(classifier.model.input, keras.ops.stack(classifier.members, axis=1))


def _compiled(learner: keras.Model, options: TrainedOptions, steps: int, devices: Devices = ONE_DEVICE) -> keras.Model:
    """The same, to be trained for so many steps an epoch."""
    step_size = _step_size(options, steps * options.epochs)
    devices.compile(
        learner,
        lambda: keras.optimizers.Adam(step_size),
        loss=_sum_of_losses,
        steps_per_execution=steps_per_execution(steps),
    )
    return learner


def _fit_in_memory(
    learner: keras.Model, train: TransformedSplit, options: TrainedOptions, steps: int, devices: Devices = ONE_DEVICE
) -> keras.callbacks.History:
    weights = training_weights(train, learner.output.shape[2], options.class_weights == "balanced")
    batch_size = min(options.batch_size, len(train.labels))
    batches = shuffled_batches((train.features, train.labels), batch_size, options.seed, weights=weights)
    return learner.fit(
        devices.batches(batches),
        steps_per_epoch=steps,
        epochs=options.epochs,
        shuffle=False,  # the dataset is
        verbose=0,
    )


def _sum_of_losses(labels: keras.KerasTensor, probabilities: keras.KerasTensor) -> keras.KerasTensor:
    of_each = keras.ops.tile(keras.ops.reshape(labels, [-1, 1]), [1, probabilities.shape[1]])
    return keras.ops.sum(keras.losses.sparse_categorical_crossentropy(of_each, probabilities), axis=1)


def _step_size(options: TrainedOptions, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    growing = round(steps * options.warm_up)
    if not growing:
        return keras.optimizers.schedules.CosineDecay(options.learning_rate, steps)
    return keras.optimizers.schedules.CosineDecay(
        0.0, steps - growing, warmup_target=options.learning_rate, warmup_steps=growing
    )


def _over_vectors(classifier: TextClassifier, train: TransformedSplit) -> tuple[TextClassifier, TransformedSplit]:
    """What is trained alone, the vectors that it learns from, made once, and what else it takes."""
    assert classifier.head is not None
    features = {name: column for name, column in train.features.items() if name in classifier.head.input}
    vectors = _adapt(classifier, train)
    head = replace(classifier, model=classifier.head, members=classifier.head_members, fixed=None)
    return head, replace(train, features={**features, VECTORS: vectors})


# Of so many texts the vectors' means and deviations are known well.
_ADAPTED_TO = 20_000


def _adapt(classifier: TextClassifier, rows: TransformedSplit) -> np.ndarray:
    """Let the head normalise vectors as those of these rows are; float32 [n, width]: the vectors."""
    assert classifier.fixed is not None and classifier.head is not None
    taken = {name: rows.features[name] for name in classifier.fixed.input}
    vectors = predict_columns(classifier.fixed, taken, classifier.chunk)
    classifier.head.get_layer("vector_norm").adapt(vectors)
    return vectors


def run_fn(fn_args: FnArgs) -> None:
    """Train on the train split or wrap what exists, export, and leave reference predictions of the eval split.

    `fn_args.custom_config` carries `preprocessing` and `trainer`, the JSON of TextOptions and TextTrainerOptions, and
    `code_fingerprint`; `fn_args.hyperparameters` what a search found.
    """
    best = BestHyperparameters.of(fn_args)
    options = tuned_options(read_trainer_options(fn_args.custom_config["trainer"]), best.values)
    devices = ONE_DEVICE if options.model == "wrap" else training_devices(options)
    tried: dict[str, Any] = {}
    if options.model == "auto":
        if devices.workers.count > 1:
            raise TrainingError(
                "trainer.model is auto, which weighs quality against time, and each of several workers measures its "
                "own; let one process choose, and name the model that it kept"
            )
        options, tried = best_candidate(options, fn_args.train_files, fn_args.transform_output)
    made_of = best.code_fingerprint, fn_args.transform_output, fn_args.base_model or "", repr(best.values)
    files = [files_fingerprint(patterns) for patterns in (fn_args.train_files, fn_args.eval_files)]
    with (
        worker_places(fn_args, devices) as own_args,
        row_memory(options.memory, COPIES, own_args.model_run_dir, *made_of, *files) as memory,
    ):
        _train(own_args, options, best, memory, tried)


def best_candidate(
    options: AutoOptions, train_files: Sequence[str], transform_path: str
) -> tuple[TrainedOptions, dict[str, Any]]:
    """The options of the candidate to be trained, and what the provenance says of all.

    Each is trained on the rows outside of each fold, as trainers/blending.py draws them, and asked for those in it. The
    fastest is taken of those whose cross entropy is worse than the best one's by no more than the standard error of the
    difference. One alone is not tried.
    """
    candidates: dict[str, TrainedOptions] = {candidate.model: candidate for candidate in options.candidates()}
    if len(candidates) == 1:
        return next(iter(candidates.values())), {}
    transform_output = tft.TFTransformOutput(transform_path)
    transform = TransformGraph(transform_output)
    classes = transform_output.vocabulary_size_by_name(VOCABULARY)
    losses: dict[str, np.ndarray] = {}
    members: dict[str, dict[str, Any]] = {}
    folds: list[np.ndarray] = []
    for name, candidate in candidates.items():
        started = time.monotonic()
        embedding = pretrained_of(candidate)
        split = read_training_split(train_files, transform, candidate, embedding)
        folds = stratified_folds(split.labels, options.seed)
        held_out = np.concatenate(folds)
        classifier, answers = _trained_on_folds(
            split,
            folds,
            partial(_untrained, transform_output, classes, candidate, embedding),
            candidate,
        )
        weights = training_weights(split, classes, options.class_weights == "balanced")
        weights = None if weights is None else weights[held_out]
        losses[name] = cross_entropies(answers, split.labels[held_out]) * (1.0 if weights is None else weights)
        members[name] = figures(answers, split.labels[held_out], weights) | {
            "milliseconds": _milliseconds(classifier, split),
            "seconds": round(time.monotonic() - started, 2),
        }
    kept, why = kept_of(losses, {name: one["milliseconds"] for name, one in members.items()})
    report = {"kept": kept, "why": why, "rows": len(losses[kept]), "folds": len(folds), "members": members}
    return candidates[kept], report


def kept_of(losses: Mapping[str, np.ndarray], milliseconds: Mapping[str, float]) -> tuple[str, str]:
    """The candidate that is kept, by name, and why, for a person.

    Args:
        losses: float64 [n], the cross entropy of each row, by the candidates' names.
        milliseconds: for a text.
    """
    best = min(losses, key=lambda name: float(losses[name].mean()))
    good = []
    for name, loss in losses.items():
        worse, error = mean_and_error(loss - losses[best])
        if worse <= error:
            good.append(name)
    kept = min(good, key=lambda name: milliseconds[name])
    if kept != best:
        return kept, f"{best}, the best, is better by no more than the standard error, and slower"
    return kept, f"its cross entropy is the smallest of {len(losses)}"


def _untrained(
    transform_output: tft.TFTransformOutput,
    classes: int,
    options: TrainedOptions,
    embedding: Pretrained | None,
    train: TransformedSplit,
) -> TextClassifier:
    return untrained_classifier(train, known_terms(transform_output, train.features), classes, options, embedding)


def _trained_on_folds(
    split: TransformedSplit,
    folds: Sequence[np.ndarray],
    build: Callable[[TransformedSplit], TextClassifier],
    options: TrainedOptions,
) -> tuple[TextClassifier, np.ndarray]:
    """A classifier of the kind, and what those trained without a fold say of it, one fold after the other."""
    answers = []
    everything = np.arange(len(split.labels))
    classifier = build(split)
    # What is not trained is asked once for each text, whatever the fold.
    learned, rows = (classifier, split) if classifier.fixed is None else _over_vectors(classifier, split)
    # One graph for all folds: of few texts, tracing it takes longer than training.
    steps = options.steps_per_epoch(len(everything) - max(len(fold) for fold in folds))
    together = _compiled(_side_by_side(learned), options, steps)
    together.optimizer.build(together.trainable_variables)
    variables = [*together.variables, *together.optimizer.variables]
    begin = [variable.numpy() for variable in variables]
    for fold in folds:
        seen = rows_of(rows, np.setdiff1d(everything, fold, assume_unique=True))
        for variable, value in zip(variables, begin, strict=True):
            variable.assign(value)
        set_ratios(learned.model, seen)
        _fit_in_memory(together, seen, options, steps)
        answers.append(predict_columns(learned.model, rows_of(rows, fold).features, learned.chunk))
    return classifier, np.concatenate(answers)


_TIMED_TEXTS = 64


def _milliseconds(classifier: TextClassifier, split: TransformedSplit) -> float:
    """What the network takes for a text, of some that are asked one by one."""
    model = frozen_model(classifier.model)
    texts = [rows_of(split, np.array([row])).features for row in range(min(_TIMED_TEXTS, len(split.labels)))]
    batches = [dense_batch(features) for features in texts]
    for batch in batches[:8]:
        model(batch)
    started = time.monotonic()
    for batch in batches:
        model(batch)
    return round(1000 * (time.monotonic() - started) / len(batches), 3)


# How often training holds the features of a text at its peak.
COPIES = 2.5


def _train(
    fn_args: FnArgs,
    options: TextModelOptions,
    best: BestHyperparameters,
    memory: RowMemory,
    tried: Mapping[str, Any],
) -> None:
    preprocessing = TextOptions.model_validate_json(fn_args.custom_config["preprocessing"])
    transform_output = tft.TFTransformOutput(fn_args.transform_output)
    labels = [label.decode() for label in transform_output.vocabulary_by_name(VOCABULARY)]
    transform = TransformGraph(transform_output)
    handle = options.embedding_handle
    embedding = pretrained_of(options)
    # The same for both splits, which are read by one graph then.
    inputs = TEXT_MODELS[options.model].inputs(embedding, options)
    train = memory.read("train", fn_args.train_files, transform, inputs)
    features = train.spec() if isinstance(train, RowStore) else train.features
    terms = known_terms(transform_output, features)
    classifier = untrained_classifier(train, terms, len(labels), options, embedding)
    evaluation = memory.read("eval", fn_args.eval_files, transform, inputs)

    meaning = MeaningOfWeights.of(transform, preprocessing, labels, terms, handle)
    start = start_warm(classifier.model, meaning, fn_args.base_model) if options.warm_start else ""
    fit_text(classifier, train, options, memory.folder / "finished")
    predictions = predict_rows(
        evaluation, labels, lambda rows: predict_split(classifier.model, rows, labels, classifier.chunk).probabilities
    )
    serving = ServingOptions.of(fn_args.custom_config)
    unknown = unknown_rule(serving, labels, *calibration(evaluation, predictions))
    vocabulary = Labels(transform_output.vocabulary_file_by_name(VOCABULARY), unknown=unknown)
    export(
        served_model(
            transform=transform,
            predict=_served_prediction(classifier),
            labels=vocabulary,
            raw_feature_spec=transform.raw_feature_spec,
            text_column=preprocessing.column,
            classes=len(labels),
            resources=classifier.resources,
            explain=serving.explain_samples(TEXT_SAMPLES),
        ),
        fn_args.serving_model_dir,
    )
    if options.warm_start:
        write_warm_start(fn_args.serving_model_dir, classifier.model, meaning)
    write_artifacts(
        fn_args.serving_model_dir,
        fn_args.model_run_dir,
        model=classifier.model,
        predictions=(with_answers(part, labels, unknown=unknown) for part in predictions),
        data_fingerprint=data_fingerprint(train.fingerprint, evaluation.fingerprint),
        code_fingerprint=best.code_fingerprint,
        left_out=train.left_out + evaluation.left_out,
        hyperparameters=best.values,
        warm_start=start,
        unknown=unknown,
        texts={
            "terms": preprocessing.described_terms() if terms else "",
            "known": {name: len(known) for name, known in terms.items()},
            **({"tried": tried} if tried else {}),
        },
        streamed={"rows": train.rows, "memory": memory.bytes} if isinstance(train, RowStore) else {},
    )


def read_training_split(
    train_files: Sequence[str],
    transform: TransformGraph,
    options: TextModelOptions,
    embedding: Pretrained | None = None,
) -> TransformedSplit:
    """The split as the model takes it, of a larger one as much as fits; the embedding is what pretrained_of has."""
    with row_memory(options.memory, COPIES, "") as memory:
        found = memory.read("train", train_files, transform, TEXT_MODELS[options.model].inputs(embedding, options))
        return sampled(found, memory, options.seed)[0]


def known_terms(transform_output: tft.TFTransformOutput, features: Collection[str]) -> dict[str, list[str]]:
    """The terms of each vocabulary that the features are of, in the order of their numbers; words first."""
    return {
        vocabulary: [line.decode().partition(" ")[2] for line in transform_output.vocabulary_by_name(vocabulary)]
        for vocabulary in (*WEIGHTS_OF, TOKENS)
        if vocabulary in features
    }


def untrained_classifier(
    train: TransformedSplit | RowStore,
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
        return lambda features: in_chunks(predict, classifier.inputs(features), classes, chunk)
    return lambda features: predict(dense_batch(classifier.inputs(features)))


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Train on a part of the train split, and compare on the rest of it.

    `fn_args.custom_config` carries `trainer` and `tuner`, the JSON of TextTrainerOptions and TunerOptions.
    """
    options = read_trainer_options(fn_args.custom_config["trainer"])
    assert options.model != "auto", "a config refuses it"
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
