"""Training of a model of photos, or the wrapping of one that exists, and its export."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs

from serving.export import export
from serving.labels import VOCABULARY, Labels
from serving.signatures.image import served_model
from serving.signatures.raw_features import Features
from trainers.best_hyperparameters import BestHyperparameters
from trainers.data_fingerprint import data_fingerprint
from trainers.fine_tune import fine_tuned
from trainers.fine_tune_options import FineTuneOptions
from trainers.frozen_classifier import frozen_classifier
from trainers.image_options import read_trainer_options
from trainers.leave_beside_export import leave_beside_export
from trainers.photo_predictions import photo_predictions
from trainers.photo_split import read_photo_split
from trainers.photo_training import PhotoTraining
from trainers.photo_warm_start import PhotoWarmStart
from trainers.photos import read_photos
from trainers.training_folder import training_folder
from trainers.transform_graph import TransformGraph
from trainers.tuned_options import tuned_options
from trainers.warm_start import MeaningOfWeights, leave_for_warm_start, start_fingerprint
from trainers.wrapped_classifier import wrapped_classifier
from transform.image_options import ImageOptions


def run_fn(fn_args: FnArgs) -> None:
    """Train on the train split or wrap what exists, export, and leave the eval split's reference predictions beside it.

    `fn_args.custom_config` carries `preprocessing` and `trainer`, the JSON of ImageOptions and ImageTrainerOptions, and
    `code_fingerprint`; `fn_args.hyperparameters` what a search found. A training that was killed goes on when it is run
    again.
    """
    best = BestHyperparameters.of(fn_args)
    options = tuned_options(read_trainer_options(fn_args.custom_config["trainer"]), best.values)
    preprocessing = ImageOptions.model_validate_json(fn_args.custom_config["preprocessing"])
    transform_output = tft.TFTransformOutput(fn_args.transform_output)
    labels = [label.decode() for label in transform_output.vocabulary_by_name(VOCABULARY)]
    transform = TransformGraph(transform_output)
    train_photos = read_photos(fn_args.train_files, transform)
    eval_photos = read_photos(fn_args.eval_files, transform)
    train, evaluation = read_photo_split(train_photos), read_photo_split(eval_photos)
    made_from = data_fingerprint(train.fingerprint, evaluation.fingerprint)

    warm_start = None
    if isinstance(options, FineTuneOptions) and options.warm_start:
        warm_start = PhotoWarmStart(
            MeaningOfWeights.of(transform, preprocessing, labels, vocabularies={}), fn_args.base_model
        )
    began_with = start_fingerprint(warm_start.served) if warm_start else ""

    with training_folder(fn_args.model_run_dir, made_from, best.code_fingerprint, began_with) as folder:
        if isinstance(options, FineTuneOptions):
            training = PhotoTraining(train_photos, train, len(labels), preprocessing.scaling, options, folder)
            classifier = fine_tuned(training, preprocessing, warm_start)
        else:
            classifier = wrapped_classifier(options, preprocessing, len(labels))
        classifier = classifier.traced(preprocessing.height, preprocessing.width)
        frozen = frozen_classifier(classifier, preprocessing.height, preprocessing.width, options.precision)
        _export(frozen.predict, transform_output, transform, preprocessing, len(labels), fn_args.serving_model_dir)
        if classifier.meaning is not None:
            leave_for_warm_start(fn_args.serving_model_dir, classifier.model, classifier.meaning)
        leave_beside_export(
            fn_args.serving_model_dir,
            fn_args.model_run_dir,
            model=classifier.model,
            predictions=photo_predictions(classifier, eval_photos, labels),
            data_fingerprint=made_from,
            code_fingerprint=best.code_fingerprint,
            left_out=train.left_out + evaluation.left_out,
            hyperparameters=best.values,
            precision=frozen.provenance,
            warm_start=classifier.start,
        )


def _export(
    predict: Callable[[Features], tf.Tensor],
    transform_output: tft.TFTransformOutput,
    transform: TransformGraph,
    preprocessing: ImageOptions,
    classes: int,
    path: str,
) -> None:
    export(
        served_model(
            transform=transform,
            predict=predict,
            labels=Labels(transform_output.vocabulary_file_by_name(VOCABULARY)),
            raw_feature_spec=transform.raw_feature_spec,
            label_column=preprocessing.label.column,
            classes=classes,
        ),
        path,
    )
