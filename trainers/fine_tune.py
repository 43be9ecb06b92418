"""Train a classifier of photos."""

from __future__ import annotations

import keras

from trainers.fine_tune_from_features import train_from_features
from trainers.fine_tune_from_scratch import train_from_scratch
from trainers.image_backbone import image_backbone
from trainers.image_classifier import ImageClassifier
from trainers.photo_training import PhotoTraining
from trainers.photo_warm_start import PhotoWarmStart
from transform.image_options import ImageOptions


def fine_tuned(
    training: PhotoTraining, preprocessing: ImageOptions, warm_start: PhotoWarmStart | None = None
) -> ImageClassifier:
    """Train a backbone and a head on a split of photos.

    Args:
        training: the split, and how to train.
        preprocessing: size and scaling of the pixels.
        warm_start: what to begin with, if it is to be the served model.

    Raises:
        TrainingError: the backbone's weights cannot be had, or a block is named that there is not.
    """
    options = training.options
    keras.utils.set_random_seed(options.seed)
    backbone = image_backbone(options.backbone, options.weights, preprocessing)
    if warm_start is not None:
        warm_start = warm_start.of_backbone(backbone, options)
    train = train_from_scratch if options.from_scratch else train_from_features
    trained = train(backbone, training, warm_start)
    model = trained.model
    meaning = None if warm_start is None else warm_start.meaning_with(trained.blocks)
    return ImageClassifier(lambda pixels: model(pixels, training=False), model, trained.start, meaning)
