"""Training or wrapping of an image classifier, its export, and the search for its options: run_fn and tuner_fn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from serving.reference_predictions import ReferencePredictions, with_answers
from serving.signatures.common import VOCABULARY, Labels, export
from serving.signatures.explain import PHOTO_SAMPLES
from serving.signatures.image import ERROR, IMAGE, served_model
from trainers.artifacts import learning_curves, unknown_rule, write_artifacts
from trainers.devices import ONE_DEVICE, training_devices, worker_places
from trainers.errors import TrainingError
from trainers.fitting import training_folder
from trainers.image.batches import ImageTraining
from trainers.image.fine_tuning import ImageWarmStart, fine_tuned
from trainers.image.models import FrozenClassifier, ImageClassifier, frozen_classifier
from trainers.image.options import AUTO, FineTuneOptions, WrapOptions, read_trainer_options
from trainers.image.splits import (
    BATCH_SIZE,
    Images,
    image_predictions,
    image_transform,
    is_usable,
    read_image_split,
    read_images,
)
from trainers.image.wrap import check_scaling, tried_scalings, wrapped_classifier
from trainers.options import ServingOptions, TunerOptions, tuned_options
from trainers.splits import TransformGraph, data_fingerprint
from trainers.tuning import (
    BestHyperparameters,
    TrialOutcome,
    check_held_out,
    held_out_for_tuning,
    hyperparameter_search,
)
from trainers.warm_start import MeaningOfWeights, start_fingerprint, write_warm_start
from transform.options import ImageOptions


def run_fn(fn_args: FnArgs) -> None:
    """Train on the train split or wrap what exists, export, and leave the eval split's reference predictions beside it.

    `fn_args.custom_config` carries `preprocessing` and `trainer`, the JSON of ImageOptions and ImageTrainerOptions, and
    `code_fingerprint`; `fn_args.hyperparameters` what a search found. A training that was killed goes on when it is run
    again.
    """
    best = BestHyperparameters.of(fn_args)
    options = tuned_options(read_trainer_options(fn_args.custom_config["trainer"]), best.values)
    devices = training_devices(options) if options.mode == "fine_tune" else ONE_DEVICE
    if options.mode == "fine_tune" and options.backbone == AUTO and devices.workers.count > 1:
        raise TrainingError(
            "trainer.backbone is auto, which weighs accuracy against time, and each of several workers measures its "
            "own; let one process choose, and name the backbone that it kept"
        )
    with worker_places(fn_args, devices) as own_args:
        _train(own_args, options, best)


def _train(fn_args: FnArgs, options: FineTuneOptions | WrapOptions, best: BestHyperparameters) -> None:
    preprocessing = ImageOptions.model_validate_json(fn_args.custom_config["preprocessing"])
    transform_output = tft.TFTransformOutput(fn_args.transform_output)
    labels = [label.decode() for label in transform_output.vocabulary_by_name(VOCABULARY)]
    transform = TransformGraph(transform_output)
    decoded = image_transform(transform)
    train_images, eval_images = read_images(fn_args.train_files, decoded), read_images(fn_args.eval_files, decoded)
    train, evaluation = read_image_split(train_images), read_image_split(eval_images)
    made_from = data_fingerprint(train.fingerprint, evaluation.fingerprint)

    warm_start = None
    if options.mode == "fine_tune" and options.warm_start:
        warm_start = ImageWarmStart(
            MeaningOfWeights.of(transform, preprocessing, labels, vocabularies={}), fn_args.base_model
        )
    began_with = start_fingerprint(warm_start.served) if warm_start else ""

    with training_folder(fn_args.model_run_dir, made_from, best.code_fingerprint, began_with) as folder:
        if options.mode == "fine_tune":
            training = ImageTraining(train_images, train, len(labels), preprocessing.scaling, options, folder)
            classifier = fine_tuned(training, preprocessing, warm_start)
        else:
            classifier = wrapped_classifier(options, preprocessing, len(labels))
        classifier = classifier.traced(preprocessing.height, preprocessing.width)
        chosen: dict[str, Any] = {"backbones": classifier.tried} if classifier.tried else {}
        if options.mode == "wrap":
            trials = tried_scalings(classifier, preprocessing, eval_images)
            check_scaling(trials, preprocessing.scaling)
            chosen = trials.as_provenance()
        predictions = image_predictions(classifier, eval_images, labels)
        if options.precision == "int8":
            frozen, predictions = _in_int8(classifier, preprocessing, train_images, eval_images, predictions, labels)
        else:
            frozen = frozen_classifier(classifier, preprocessing.height, preprocessing.width, options.precision)
        serving = ServingOptions.of(fn_args.custom_config)
        unknown = unknown_rule(serving, labels, predictions, evaluation.truth)
        vocabulary = Labels(transform_output.vocabulary_file_by_name(VOCABULARY), unknown=unknown)
        export(
            served_model(
                transform=transform,
                predict=frozen.predict,
                labels=vocabulary,
                raw_feature_spec=transform.raw_feature_spec,
                label_column=preprocessing.label.column,
                classes=len(labels),
                explain=serving.explain_samples(PHOTO_SAMPLES),
            ),
            fn_args.serving_model_dir,
        )
        if classifier.meaning is not None:
            write_warm_start(fn_args.serving_model_dir, classifier.model, classifier.meaning)
        write_artifacts(
            fn_args.serving_model_dir,
            fn_args.model_run_dir,
            model=classifier.model,
            predictions=with_answers(predictions, labels, unknown=unknown),
            data_fingerprint=made_from,
            code_fingerprint=best.code_fingerprint,
            left_out=train.left_out + evaluation.left_out,
            hyperparameters=best.values,
            details=frozen.provenance | chosen,
            warm_start=classifier.start,
            unknown=unknown,
        )


# int8 is exported where the network takes at most so much of its time in float32, and tells at most so much less.
_INT8_TIME, _INT8_LOSS = 0.6, 0.005
# So many batches of the train split tell how large the numbers in a network get.
_CALIBRATION_BATCHES = 4


def _in_int8(
    classifier: ImageClassifier,
    preprocessing: ImageOptions,
    train_images: Images,
    eval_images: Images,
    in_float32: ReferencePredictions,
    labels: Sequence[str],
) -> tuple[FrozenClassifier, ReferencePredictions]:
    """The classifier in int8, and its own predictions of the eval split; in float32 where int8 is not worth it.

    What is served is compared with the predictions in int8, as those in float32 say which photos it costs. Where there
    is no photo whose label is known, the labels in float32 count as such.
    """
    size = preprocessing.height, preprocessing.width
    try:
        frozen = frozen_classifier(classifier, *size, "int8", _usable_pixels(train_images))
        as_served = replace(classifier, predict=lambda pixels: frozen.predict({IMAGE: pixels}))
        in_int8 = image_predictions(as_served.traced(*size), eval_images, labels)
        time = frozen.provenance["time_of_float32"]
        told = {"float32": _told(in_float32, in_float32, labels), "int8": _told(in_int8, in_float32, labels)}
        if max(time.values()) <= _INT8_TIME and told["float32"] - told["int8"] <= _INT8_LOSS:
            return replace(frozen, provenance=frozen.provenance | {"told": told}), in_int8
        limits = {"time_of_float32": _INT8_TIME, "fewer_told": _INT8_LOSS}
        refused: dict[str, Any] = {"time_of_float32": time, "told": told, "limits": limits}
    except TrainingError as error:
        refused = {"reason": str(error)}
    frozen = frozen_classifier(classifier, *size, "float32")
    return replace(frozen, provenance=frozen.provenance | {"int8_refused": refused}), in_float32


def _usable_pixels(images: Images) -> Iterator[tf.Tensor]:
    for batch in islice(images.read(BATCH_SIZE), _CALIBRATION_BATCHES):
        yield tf.boolean_mask(batch[IMAGE], tf.equal(batch[ERROR], ""))


def _told(predictions: ReferencePredictions, in_float32: ReferencePredictions, labels: Sequence[str]) -> float:
    """The share of the photos with a known label that are told; where there is none, of all that of float32."""
    truth = predictions.truth
    if truth is None or not (truth >= 0).any():
        return float(np.mean([one == other for one, other in zip(predictions.labels, in_float32.labels, strict=True)]))
    known = np.flatnonzero(truth >= 0)
    return float(np.mean([predictions.labels[row] == labels[truth[row]] for row in known]))


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Train on a part of the train split, and compare on the rest of it.

    `fn_args.custom_config` carries `preprocessing`, `trainer` and `tuner`, the JSON of ImageOptions, FineTuneOptions
    and TunerOptions.
    """
    options = FineTuneOptions.model_validate_json(fn_args.custom_config["trainer"])
    preprocessing = ImageOptions.model_validate_json(fn_args.custom_config["preprocessing"])
    tuner = TunerOptions.model_validate_json(fn_args.custom_config["tuner"])
    transform_output = tft.TFTransformOutput(fn_args.transform_graph_path)
    classes = len(transform_output.vocabulary_by_name(VOCABULARY))
    photos = read_images(fn_args.train_files, image_transform(TransformGraph(transform_output)))
    return search_for_images(photos, classes, preprocessing, options, tuner, fn_args.working_dir)


def search_for_images(
    photos: Images,
    classes: int,
    preprocessing: ImageOptions,
    options: FineTuneOptions,
    tuner: TunerOptions,
    folder: str,
) -> TunerFnResult:
    """A search on a training split of photos, see trainers/tuning.py."""
    train_images, held_out_images = _part(photos, tuner, held_out=False), _part(photos, tuner, held_out=True)
    train, held_out = read_image_split(train_images), read_image_split(held_out_images)
    check_held_out(train.labels, held_out.labels, tuner)

    def trial(candidate: FineTuneOptions, own_folder: Path) -> TrialOutcome:
        training = ImageTraining(train_images, train, classes, preprocessing.scaling, candidate, own_folder)
        classifier = fine_tuned(training, preprocessing)
        probabilities = _probabilities(classifier.traced(preprocessing.height, preprocessing.width), held_out_images)
        return TrialOutcome(learning_curves(classifier.model), held_out.labels, probabilities)

    return hyperparameter_search(trial, options, tuner, folder)


def _part(photos: Images, tuner: TunerOptions, held_out: bool) -> Images:
    @tf.autograph.experimental.do_not_convert
    def chosen(record: tf.Tensor) -> tf.Tensor:
        return tf.equal(held_out_for_tuning(record, tuner), held_out)

    return replace(photos, records=photos.records.filter(chosen))


def _probabilities(classifier: ImageClassifier, photos: Images) -> np.ndarray:
    """float32 [n, classes], of the photos that `read_image_split` has labels of."""
    rows = [
        tf.boolean_mask(classifier.predict(batch[IMAGE]), is_usable(batch)).numpy() for batch in photos.read(BATCH_SIZE)
    ]
    return np.concatenate(rows)
