"""Training of a model of tables, its export, and the search for its options: run_fn and tuner_fn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from serving.answers import Decision, write_decision
from serving.reference_predictions import with_answers
from serving.signatures.common import VOCABULARY, Labels, export
from serving.signatures.tabular import served_model
from trainers.artifacts import (
    calibration,
    learning_curves,
    predict_rows,
    unknown_rule,
    write_artifacts,
    write_members,
)
from trainers.devices import training_devices, worker_places
from trainers.errors import TrainingError
from trainers.fitting import resumable_fit, steps_per_execution
from trainers.options import DecisionOptions, ServingOptions, TunerOptions, tuned_options
from trainers.roc import Scores, best_threshold
from trainers.row_store import FEWEST_SAMPLED, RowMemory, Stream, files_fingerprint, row_memory, sampled
from trainers.splits import (
    Rows,
    TransformedSplit,
    TransformGraph,
    data_fingerprint,
    dense_batch,
    shuffled_batches,
    training_weights,
)
from trainers.tabular.background import explanation
from trainers.tabular.members import FEWEST_ROWS, Table, train_members
from trainers.tabular.models import (
    Classifier,
    build_model,
    feature_sizes,
    keras_classifier,
    known_categories,
    known_terms,
    model_inputs,
)
from trainers.tabular.options import TabularTrainerOptions, read_trainer_options
from trainers.tabular.wrap import wrap
from trainers.tuning import BestHyperparameters, TrialOutcome, hyperparameter_search, rows_of, tuning_split
from trainers.warm_start import MeaningOfWeights, start_warm, write_warm_start
from transform.options import LabelOptions, TabularOptions
from transform.tabular import CATEGORY_VOCABULARY


def run_fn(fn_args: FnArgs) -> None:
    """Train on the train split or wrap what exists, export, and leave reference predictions of the eval split.

    `fn_args.custom_config` carries `preprocessing` and `trainer`, the JSON of TabularOptions and of the options of a
    trainer of tables, `code_fingerprint`, `weight`, the column of the rows' weights, "" for none, and `serving`, the
    JSON of ServingOptions, if anything of it is set; `fn_args.hyperparameters` what a search found.
    """
    best = BestHyperparameters.of(fn_args)
    given = read_trainer_options(fn_args.custom_config["trainer"])
    serving = ServingOptions.of(fn_args.custom_config)
    if given.mode == "wrap":
        wrap(fn_args, given, best.code_fingerprint)
        return
    options = tuned_options(given, best.values)
    devices = training_devices(options)
    if devices.workers.count > 1 and options.has_members:
        raise TrainingError(
            f"TF_CONFIG names {devices.workers.count} workers, which train one Keras model together; model: "
            f"{options.model} trains several, and trees: say trainer.model: network or linear, or unset TF_CONFIG"
        )
    made_of = best.code_fingerprint, fn_args.transform_output, fn_args.base_model or "", repr(best.values)
    files = [files_fingerprint(patterns) for patterns in (fn_args.train_files, fn_args.eval_files)]
    with (
        worker_places(fn_args, devices) as own_args,
        row_memory(options.memory, COPIES, own_args.model_run_dir, *made_of, *files) as memory,
    ):
        _train(own_args, options, serving, best, memory)


# How often training holds the features of a row at its peak, measured on a million rows of 30 columns.
COPIES = 5.0


def _train(
    fn_args: FnArgs,
    options: TabularTrainerOptions,
    serving: ServingOptions,
    best: BestHyperparameters,
    memory: RowMemory,
) -> None:
    preprocessing = TabularOptions.model_validate_json(fn_args.custom_config["preprocessing"])
    transform_output = tft.TFTransformOutput(fn_args.transform_output)
    labels = [label.decode() for label in transform_output.vocabulary_by_name(VOCABULARY)]
    transform = TransformGraph(transform_output)
    weight = fn_args.custom_config.get("weight", "")
    all_rows = memory.read("train", fn_args.train_files, transform, model_inputs, weight)
    evaluation = memory.read("eval", fn_args.eval_files, transform, model_inputs, weight)
    # A Keras model alone learns from all rows; of its table, the shape is taken, and folds for a decision.
    train, stream = sampled(all_rows, memory, options.seed, None if options.has_members else FEWEST_SAMPLED)
    streamed: dict[str, int] = {}
    if stream is not None:
        streamed = {"rows": stream.store.rows, "memory": memory.bytes}
        streamed |= {"rows_in_memory": len(stream.sample)} if options.has_members else {}

    categories = known_categories(transform_output, train.features)
    terms = known_terms(transform_output, train.features)
    table = Table(train, len(labels), len(categories), feature_sizes(terms, preprocessing), options, stream)
    start = ""
    if options.has_members:
        classifier = train_members(table)
    else:
        model = _keras_model(table)
        vocabularies = ({CATEGORY_VOCABULARY: categories} if categories else {}) | terms
        meaning = MeaningOfWeights.of(transform, preprocessing, labels, vocabularies)
        start = start_warm(model, meaning, fn_args.base_model) if options.warm_start else ""
        if stream is None:
            fit(model, train, options)
        else:
            fit_stream(model, stream, options)
        classifier = keras_classifier(model, learning_curves(model))
    decision, figures = _decision(serving.decision, table, classifier, labels, preprocessing.label)
    predictions = predict_rows(evaluation, labels, classifier.predict)
    out_of_fold = None
    if classifier.out_of_fold is not None:
        rows, probabilities = classifier.out_of_fold
        out_of_fold = probabilities, table.labels[rows]
    unknown = unknown_rule(serving, labels, *calibration(evaluation, predictions), out_of_fold)
    answered = Labels(transform_output.vocabulary_file_by_name(VOCABULARY), decision, unknown)
    not_asked = {preprocessing.label.column, *preprocessing.ignored_columns()}
    columns = {name: spec for name, spec in transform.raw_feature_spec.items() if name not in not_asked}
    explain = explanation(serving, fn_args.train_files, columns, transform, classifier.answer)
    export(
        served_model(
            transform=transform,
            predict=classifier.answer,
            labels=answered,
            raw_feature_spec=transform.raw_feature_spec,
            label_column=preprocessing.label.column,
            classes=len(labels),
            list_separators=preprocessing.list_separators(),
            ignored=preprocessing.ignored_columns(),
            explain=explain,
        ),
        fn_args.serving_model_dir,
    )
    if decision is not None:
        write_decision(fn_args.serving_model_dir, decision)
    if options.has_members and classifier.save is not None:
        write_members(fn_args.serving_model_dir, classifier.save)
    if options.warm_start:
        write_warm_start(fn_args.serving_model_dir, model, meaning)
    write_artifacts(
        fn_args.serving_model_dir,
        fn_args.model_run_dir,
        model=None if options.has_members else classifier.model,
        predictions=(with_answers(part, labels, decision, unknown) for part in predictions),
        decision=figures,
        curves=classifier.curves,
        members=classifier.report,
        data_fingerprint=data_fingerprint(train.fingerprint, evaluation.fingerprint),
        code_fingerprint=best.code_fingerprint,
        left_out=train.left_out + evaluation.left_out,
        hyperparameters=best.values,
        warm_start=start,
        unknown=unknown,
        streamed=streamed,
    )


def fit(model: keras.Model, train: TransformedSplit, options: TabularTrainerOptions) -> None:
    """Train in place, by Adam with a cosine-decayed step size."""
    order = np.random.default_rng(options.seed).permutation(len(train.labels))
    held_out = order[: len(order) // 10] if options.early_stopping_patience else order[:0]
    used = order[len(held_out) :]
    batch_size = min(options.batch_size, len(used))
    steps = -(-len(used) // batch_size)
    step_size = keras.optimizers.schedules.CosineDecay(options.learning_rate, steps * options.epochs)
    devices = training_devices(options)
    learner = devices.learner(model)
    devices.compile(
        learner,
        lambda: keras.optimizers.Adam(step_size),
        loss="sparse_categorical_crossentropy",
        steps_per_execution=steps_per_execution(steps),
    )
    callbacks = []
    if options.early_stopping_patience:
        callbacks.append(
            keras.callbacks.EarlyStopping(patience=options.early_stopping_patience, restore_best_weights=True)
        )
    weights = training_weights(train, model.output.shape[1], options.class_weights == "balanced")
    batches = shuffled_batches(
        _rows(train, used), batch_size, options.seed, False, None if weights is None else weights[used]
    )
    learner.fit(
        devices.batches(batches),
        steps_per_epoch=steps,
        epochs=options.epochs,
        validation_data=devices.batches(_validation(train, held_out, weights)) if len(held_out) else None,
        callbacks=callbacks,
        shuffle=False,  # the dataset is
        verbose=0,
    )
    devices.take_back(model, learner)


# Of more rows held out, a loss is hardly known better.
_MOST_HELD_OUT = 50_000


def fit_stream(
    model: keras.Model, stream: Stream, options: TabularTrainerOptions, without: np.ndarray | None = None
) -> None:
    """Train in place as fit does, from rows on disk; a training that was killed goes on behind its last epoch.

    Args:
        model: to be trained.
        stream: the rows.
        options: of the training.
        without: int64, ascending: rows that are not learned from.
    """
    store = stream.store
    unseen = np.zeros(0, np.int64) if without is None else without
    held_out = unseen[:0]
    if options.early_stopping_patience:
        held_out = np.setdiff1d(store.draw(min(store.rows // 10, _MOST_HELD_OUT), options.seed), unseen)
    left_out = np.union1d(unseen, held_out)
    used = store.rows - len(left_out)
    batch_size = min(options.batch_size, used)
    steps = -(-used // batch_size)
    step_size = keras.optimizers.schedules.CosineDecay(options.learning_rate, steps * options.epochs)
    devices = training_devices(options)
    learner = devices.learner(model)
    devices.compile(
        learner,
        lambda: keras.optimizers.Adam(step_size),
        loss="sparse_categorical_crossentropy",
        steps_per_execution=steps_per_execution(steps),
    )
    balanced = options.class_weights == "balanced"
    validation = None
    if len(held_out):
        part = store.chosen(held_out)
        weights = store.training_weights(part, balanced)
        validation = devices.batches(_validation(part, np.arange(len(held_out)), weights))
    resumable_fit(
        learner,
        lambda first: devices.batches(store.batches(batch_size, options.seed, first, left_out, balanced)),
        steps,
        options.epochs,
        stream.finished.folder_of("model" if without is None else "model of a fold"),
        validation,
        options.early_stopping_patience,
    )
    devices.take_back(model, learner)


def _rows(split: TransformedSplit, rows: np.ndarray) -> Rows:
    features = {
        name: tf.gather(column, rows) if isinstance(column, tf.RaggedTensor) else column[rows]
        for name, column in split.features.items()
    }
    return features, split.labels[rows]


def _validation(split: TransformedSplit, rows: np.ndarray, weights: np.ndarray | None) -> tf.data.Dataset:
    features, labels = _rows(split, rows)
    # As tensors, as in shuffled_batches; and batched as Keras batches arrays.
    columns = {
        name: column if isinstance(column, tf.RaggedTensor) else tf.constant(column)
        for name, column in features.items()
    }
    others = [tf.constant(labels)] if weights is None else [tf.constant(labels), tf.constant(weights[rows], tf.float32)]
    batches = tf.data.Dataset.range(len(rows)).batch(32)
    return batches.map(
        tf.autograph.experimental.do_not_convert(
            lambda chosen: (dense_batch(columns, chosen), *(tf.gather(other, chosen) for other in others))
        )
    )


def _keras_model(table: Table) -> keras.Model:
    """An untrained model, the same for the same seed."""
    options = table.options
    keras.utils.set_random_seed(options.seed)
    as_asked = options.model_copy(update={"hidden_units": options.keras_units})
    return build_model(table.split.features, table.vocabulary_size, table.classes, as_asked, table.sizes)


def _decision(
    options: DecisionOptions | None,
    table: Table,
    classifier: Classifier,
    labels: Sequence[str],
    of_label: LabelOptions,
) -> tuple[Decision | None, dict[str, Any]]:
    """Which label is answered, and what the provenance says of it.

    The threshold is chosen, and measured, on rows of the train split by models that did not see them. Class weights
    have no part in it: precision is that of the data as they are.

    Raises:
        TrainingError: no threshold can be chosen.
    """
    positive = of_label.number_of_positive(labels)
    if options is None or positive is None:
        return None, {}
    label = labels[positive]
    out_of_fold = classifier.out_of_fold
    if out_of_fold is None and options.threshold is None:
        out_of_fold = _keras_out_of_fold(table)
    if out_of_fold is None:
        decision = Decision(label, float(np.float32(options.threshold)))
        return decision, {**asdict(decision), "by": str(options)}
    rows, probabilities = out_of_fold
    weights = None if table.split.weights is None else table.split.weights[rows]
    scores = Scores(table.labels[rows] == positive, probabilities[:, positive], weights)
    threshold = best_threshold(options, scores) if options.threshold is None else float(np.float32(options.threshold))
    decision = Decision(label, threshold)
    figures = {"figures": scores.figures(threshold), "at_a_half": scores.figures(0.5)}
    return decision, {**asdict(decision), "by": str(options), "rows": len(rows), **figures}


# Of more rows than these one fold says enough about a threshold.
_ROWS_OF_ALL_FOLDS = 5_000


def _keras_out_of_fold(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """What models trained as the one that is kept, each without a fold, say of that fold."""
    if table.options.has_members or len(table.labels) < FEWEST_ROWS:
        raise TrainingError(
            f"serving.decision: {len(table.labels)} rows, or those of the second most frequent label, are too few for "
            "folds to choose a threshold on; give a threshold, or more data"
        )
    folds = table.folds if len(table.labels) <= _ROWS_OF_ALL_FOLDS and table.stream is None else table.folds[:1]
    answers = []
    for fold in folds:
        model = _keras_model(table)
        if table.stream is None:
            fit(model, rows_of(table.split, table.seen(fold)), table.options)
        else:
            fit_stream(model, table.stream, table.options, table.stream.sample[fold])
        answers.append(keras_classifier(model).predict(rows_of(table.split, fold)))
    return np.concatenate(folds), np.concatenate(answers)


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Train on a part of the train split, or of as much of it as fits into memory, and compare on the rest of that.

    `fn_args.custom_config` carries `preprocessing`, `trainer` and `tuner`, the JSON of TabularOptions,
    TabularTrainerOptions and TunerOptions.
    """
    preprocessing = TabularOptions.model_validate_json(fn_args.custom_config["preprocessing"])
    options = TabularTrainerOptions.model_validate_json(fn_args.custom_config["trainer"])
    tuner = TunerOptions.model_validate_json(fn_args.custom_config["tuner"])
    transform_output = tft.TFTransformOutput(fn_args.transform_graph_path)
    labels = [label.decode() for label in transform_output.vocabulary_by_name(VOCABULARY)]
    transform = TransformGraph(transform_output)
    weight = fn_args.custom_config.get("weight", "")
    with row_memory(options.memory, COPIES, "") as memory:
        all_rows = memory.read("train", fn_args.train_files, transform, model_inputs, weight)
        train, held_out = tuning_split(sampled(all_rows, memory, options.seed)[0], tuner)
    categories = known_categories(transform_output, train.features)
    sizes = feature_sizes(known_terms(transform_output, train.features), preprocessing)

    def trial(candidate: TabularTrainerOptions, _: Path) -> TrialOutcome:
        table = Table(train, len(labels), len(categories), sizes, candidate)
        if candidate.has_members:
            classifier = train_members(table)
        else:
            model = _keras_model(table)
            fit(model, train, candidate)
            classifier = keras_classifier(model, learning_curves(model))
        return TrialOutcome(classifier.curves, held_out.labels, classifier.predict(held_out), held_out.weights)

    return hyperparameter_search(trial, options, tuner, fn_args.working_dir)
