"""InceptionV3 with 1000 classes and random weights, exported as the pipeline exports it, and a photo for it."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from benchmarks.transform_graph import transform_graph
from serving.export import export
from serving.labels import VOCABULARY, Labels
from serving.signatures.image import served_model
from trainers.frozen_classifier import frozen_classifier
from trainers.image_classifier import ImageClassifier
from trainers.label_file import IMAGENET, read_label_file
from trainers.precision import Precision
from trainers.transform_graph import TransformGraph
from transform.image import preprocessing_fn
from transform.image_options import ImageOptions
from transform.label_options import LabelOptions

PHOTO_HEIGHT, PHOTO_WIDTH = 960, 1280
LABELS = read_label_file(IMAGENET, background_first=False)
OPTIONS = ImageOptions(label=LabelOptions(column="label", order=LABELS))
SIZE = (OPTIONS.height, OPTIONS.width)


def example_photo() -> bytes:
    """A JPEG with structure at every scale, of the size of file that a camera makes."""
    noise, size = np.random.default_rng(0), (PHOTO_HEIGHT, PHOTO_WIDTH)
    layers = [
        tf.image.resize(noise.normal(0, 30, [PHOTO_HEIGHT // step, PHOTO_WIDTH // step, 3]), size)
        for step in (2, 8, 32, 128)
    ]
    pixels = tf.cast(tf.clip_by_value(128 + tf.add_n(layers), 0, 255), tf.uint8)
    return bytes(tf.io.encode_jpeg(pixels, quality=90).numpy())


def image_export(model: keras.Model, precision: Precision, photo: bytes, folder: str) -> str:
    """The directory of the SavedModel, below `folder`."""
    values = {"image": photo, "label": LABELS[0].encode(), "path": b"photo.jpg", "checksum": b""}
    features = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for name, value in values.items()}
    with tf.io.TFRecordWriter(f"{folder}/examples") as writer:
        writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    feature_spec = {name: tf.io.VarLenFeature(tf.string) for name in values}
    config = {"preprocessing": OPTIONS.model_dump_json()}
    transform = transform_graph(preprocessing_fn, config, feature_spec, f"{folder}/examples", f"{folder}/{precision}")
    classifier = ImageClassifier(lambda pixels: model(pixels, training=False), model)
    exported = served_model(
        transform=TransformGraph(transform),
        predict=frozen_classifier(classifier, *SIZE, precision).predict,
        labels=Labels(transform.vocabulary_file_by_name(VOCABULARY)),
        raw_feature_spec=feature_spec,
        label_column="label",
        classes=len(LABELS),
    )
    export(exported, f"{folder}/{precision}/export")
    return f"{folder}/{precision}/export"
