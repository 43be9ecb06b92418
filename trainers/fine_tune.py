"""Train a classifier of photos."""

from __future__ import annotations

import keras
import tensorflow as tf

from serving.export import LABEL
from serving.signatures.image import IMAGE
from trainers.fine_tune_options import FineTuneOptions
from trainers.image_classifier import ImageClassifier
from trainers.photo_split import PhotoSplit
from trainers.transformed_photos import usable
from transform.image_options import ImageOptions


def fine_tuned(
    photos: tf.data.Dataset, split: PhotoSplit, preprocessing: ImageOptions, classes: int, options: FineTuneOptions
) -> ImageClassifier:
    """Train on a split of photos.

    Args:
        photos: the batches of transformed_photos.
        split: what is known of them.
        preprocessing: size and scaling of their pixels.
        classes: how many labels there are.
        options: how to train.
    """
    keras.utils.set_random_seed(options.seed)
    backbone = getattr(keras.applications, options.backbone)(
        include_top=False, weights=None, input_shape=(preprocessing.height, preprocessing.width, 3), pooling="avg"
    )
    model = keras.Model(backbone.input, keras.layers.Dense(classes, activation="softmax")(backbone.output))
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", jit_compile=False)

    def pairs(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        keep = usable(batch)
        return tf.boolean_mask(batch[IMAGE], keep), tf.boolean_mask(batch[LABEL], keep)

    model.fit(photos.map(pairs), epochs=options.epochs, verbose=0)
    return ImageClassifier(lambda pixels: model(pixels, training=False), model)
