"""A search for the options that suit photos best."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.v1.components import TunerFnResult

from serving.labels import VOCABULARY
from serving.signatures.image import IMAGE
from trainers.fine_tune import fine_tuned
from trainers.fine_tune_options import FineTuneOptions
from trainers.held_out_for_tuning import check_held_out, held_out_for_tuning
from trainers.hyperparameter_search import hyperparameter_search
from trainers.image_classifier import ImageClassifier
from trainers.learning_curves import learning_curves
from trainers.photo_split import BATCH_SIZE, read_photo_split
from trainers.photo_training import PhotoTraining
from trainers.photos import Photos, is_usable, read_photos
from trainers.transform_graph import TransformGraph
from trainers.trial_outcome import TrialOutcome
from trainers.tuner_options import TunerOptions
from transform.image_options import ImageOptions


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
    photos = read_photos(fn_args.train_files, TransformGraph(transform_output))
    return search_for_photos(photos, classes, preprocessing, options, tuner, fn_args.working_dir)


def search_for_photos(
    photos: Photos,
    classes: int,
    preprocessing: ImageOptions,
    options: FineTuneOptions,
    tuner: TunerOptions,
    folder: str,
) -> TunerFnResult:
    """A search on a training split of photos, see trainers/hyperparameter_search.py."""
    train_photos, held_out_photos = _part(photos, tuner, held_out=False), _part(photos, tuner, held_out=True)
    train, held_out = read_photo_split(train_photos), read_photo_split(held_out_photos)
    check_held_out(train.labels, held_out.labels, tuner)

    def trial(candidate: FineTuneOptions, own_folder: Path) -> TrialOutcome:
        training = PhotoTraining(train_photos, train, classes, preprocessing.scaling, candidate, own_folder)
        classifier = fine_tuned(training, preprocessing)
        probabilities = _probabilities(classifier.traced(preprocessing.height, preprocessing.width), held_out_photos)
        return TrialOutcome(learning_curves(classifier.model), held_out.labels, probabilities)

    return hyperparameter_search(trial, options, tuner, folder)


def _part(photos: Photos, tuner: TunerOptions, held_out: bool) -> Photos:
    @tf.autograph.experimental.do_not_convert
    def chosen(record: tf.Tensor) -> tf.Tensor:
        return tf.equal(held_out_for_tuning(record, tuner), held_out)

    return replace(photos, records=photos.records.filter(chosen))


def _probabilities(classifier: ImageClassifier, photos: Photos) -> np.ndarray:
    """float32 [n, classes], of the photos that `read_photo_split` has labels of."""
    rows = [
        tf.boolean_mask(classifier.predict(batch[IMAGE]), is_usable(batch)).numpy()
        for batch in photos.batches(BATCH_SIZE)
    ]
    return np.concatenate(rows)
