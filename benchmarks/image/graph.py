"""Overhead of the served graph of images over its network, beside the obvious way to write it.

    python -m benchmarks.image.graph

InceptionV3 with 1000 classes; JPEGs of 1280x960 pixels as base64 text in, labels out. Everything takes turns within one
run, so that whatever else the machine does falls on all of it; printed are medians of the time that went by and of the
time that the cores worked (on a busy machine, the steadier one), and their ratios to the forward pass as Keras runs it:
float32, variables, pixels that are ready. Then what the rest of our graph is spent on.
"""

from __future__ import annotations

import base64
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial

import click
import keras
import numpy as np
import tensorflow as tf

from benchmarks.harness.pipelines import transform_graph
from benchmarks.harness.results import Measurement
from benchmarks.harness.running import report
from serving.session_model import SessionModel
from serving.signatures.common import VOCABULARY, Labels, export, freeze
from serving.signatures.image import image_files, served_model
from trainers.image.models import ImageClassifier, frozen_classifier
from trainers.image.options import IMAGENET, read_label_file
from trainers.image.precision import bfloat16_function, int8_function
from trainers.options import ImagePrecision
from trainers.splits import TransformGraph
from transform.image import preprocessing_fn, scale, usable_pixels
from transform.image_decoding import decode_image
from transform.options import ImageOptions, LabelOptions

IMAGE_HEIGHT, IMAGE_WIDTH = 960, 1280
LABELS = read_label_file(IMAGENET, background_first=False)
OPTIONS = ImageOptions(label=LabelOptions(column="label", order=LABELS))
SIZE = (OPTIONS.height, OPTIONS.width)


def example_image() -> bytes:
    """A JPEG with structure at every scale, of the size of file that a camera makes."""
    noise, size = np.random.default_rng(0), (IMAGE_HEIGHT, IMAGE_WIDTH)
    layers = [
        tf.image.resize(noise.normal(0, 30, [IMAGE_HEIGHT // step, IMAGE_WIDTH // step, 3]), size)
        for step in (2, 8, 32, 128)
    ]
    pixels = tf.cast(tf.clip_by_value(128 + tf.add_n(layers), 0, 255), tf.uint8)
    return bytes(tf.io.encode_jpeg(pixels, quality=90).numpy())


def image_export(model: keras.Model, precision: ImagePrecision, photo: bytes, folder: str) -> str:
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
        predict=frozen_classifier(classifier, *SIZE, precision, [some_pixels(4)]).predict,
        labels=Labels(transform.vocabulary_file_by_name(VOCABULARY)),
        raw_feature_spec=feature_spec,
        label_column="label",
        classes=len(LABELS),
    )
    export(exported, f"{folder}/{precision}/export")
    return f"{folder}/{precision}/export"


def some_pixels(batch: int) -> tf.Tensor:
    """float32 [batch, height, width, 3] from -1 to 1."""
    return tf.random.stateless_uniform([batch, *SIZE, 3], [0, 0], -1, 1)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


PRECISIONS: tuple[ImagePrecision, ...] = ("float32", "bfloat16", "int8")
BARE = "forward pass: Keras, float32"

Calls = Mapping[str, Callable[[], object]]


@click.command()
@click.option("--turns", default=15, show_default=True, help="How often each is measured at batch 1; at 8, a third.")
@click.option("--batch", "batches", type=int, multiple=True, default=(1, 8), show_default=True, help="Photos at once.")
def main(turns: int, batches: tuple[int, ...]) -> None:
    """Print the table."""
    tf.get_logger().setLevel("ERROR")
    keras.utils.set_random_seed(0)
    model = keras.applications.InceptionV3(weights=None)
    found: list[Measurement] = []
    with tempfile.TemporaryDirectory() as folder:
        photo = example_image()
        # In sessions, as TensorFlow Serving has them.
        ours = {precision: SessionModel(image_export(model, precision, photo, folder)) for precision in PRECISIONS}
        networks = _networks(model)
        for batch in batches:
            texts = tf.constant([base64.urlsafe_b64encode(photo)] * batch)
            rounds = turns if batch == 1 else max(3, turns // 3)
            whole = _take_turns(_whole(model, networks, ours, texts), rounds)
            parts = _take_turns(_parts(texts), 3 * turns)
            found += _compared(f"batch {batch}", whole, whole[BARE])
            found += _compared(f"batch {batch}, before the network", parts, whole[BARE])
    report("from base64 JPEG to label", found)


def _networks(model: keras.Model) -> dict[str, Callable[[tf.Tensor], tf.Tensor]]:
    pixels = tf.TensorSpec([None, *SIZE, 3], tf.float32)

    def predict(values: tf.Tensor) -> tf.Tensor:
        return model(values, training=False)

    return {
        BARE: tf.function(predict, input_signature=[pixels], autograph=False),
        "forward pass: frozen, float32": freeze(predict, pixels),
        "forward pass: frozen, bfloat16": bfloat16_function(predict, pixels),
        "forward pass: frozen, int8": int8_function(predict, pixels, [some_pixels(4)]),
    }


def _obvious(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """As it is usually written: one photo after the other, the label by comparison with the largest probability."""

    def pixels(text: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_jpeg(tf.io.decode_base64(text), channels=3)
        return tf.image.resize(tf.cast(image, tf.float32) / 127.5 - 1, SIZE)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def labels(texts: tf.Tensor) -> tf.Tensor:
        probabilities = model(tf.map_fn(pixels, texts, fn_output_signature=tf.float32), training=False)
        best = tf.where(tf.equal(probabilities, tf.reduce_max(probabilities, axis=1, keepdims=True)))
        return tf.gather(tf.constant(LABELS), best[:, 1])

    return labels


def _whole(
    model: keras.Model,
    networks: Mapping[str, Callable[[tf.Tensor], tf.Tensor]],
    ours: Mapping[ImagePrecision, SessionModel],
    texts: tf.Tensor,
) -> Calls:
    pixels = some_pixels(len(texts))
    request = {"image": texts.numpy()}
    obvious = _obvious(model)
    calls: dict[str, Callable[[], object]] = {
        name: partial(_numpy, network, pixels) for name, network in networks.items()
    }
    calls["the obvious graph, float32"] = partial(_numpy, obvious, texts)
    for precision, session in ours.items():
        calls[f"ours, {precision}"] = partial(session.run, "serving_default", request)
    return calls


def _numpy(function: Callable[[tf.Tensor], tf.Tensor], argument: tf.Tensor) -> np.ndarray:
    values: np.ndarray = function(argument).numpy()
    return values


def _parts(texts: tf.Tensor) -> Calls:
    def decode(file: tf.Tensor) -> tf.Tensor:
        return decode_image(file, OPTIONS.max_pixels)[0]

    def prepare(file: tf.Tensor) -> tf.Tensor:
        return scale(tf.image.resize(decode(file), SIZE, antialias=OPTIONS.antialias), OPTIONS.scaling)

    def each(function: Callable[[tf.Tensor], tf.Tensor], spec: tf.TensorSpec) -> Callable[[tf.Tensor], tf.Tensor]:
        return lambda items: tf.map_fn(function, items, fn_output_signature=spec, parallel_iterations=os.cpu_count())

    functions = {
        "base64": image_files,
        "decode": each(lambda file: tf.reduce_max(decode(file)), tf.uint8),
        "decode, resize and scale": each(prepare, tf.TensorSpec([*SIZE, 3])),
        "the same, with a verdict for each": lambda files: usable_pixels(files, OPTIONS)[0],
    }
    files = image_files(texts)
    calls: dict[str, Callable[[], object]] = {}
    for name, function in functions.items():
        traced = tf.function(function, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
        given = texts if name == "base64" else files
        calls[name] = partial(_numpy, traced, given)
    return calls


def _take_turns(calls: Calls, turns: int) -> dict[str, np.ndarray]:
    """Name -> medians of the milliseconds that went by, and of those that the cores worked.

    The first turns, in which TensorFlow optimises the graphs, do not count.
    """
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for turn in range(turns + 2):
        for name, call in calls.items():
            start, worked = time.perf_counter(), time.process_time()
            call()
            if turn >= 2:
                spent[name].append((time.perf_counter() - start, time.process_time() - worked))
    return {name: 1000 * np.median(values, axis=0) for name, values in spent.items()}


def _compared(of: str, milliseconds: Mapping[str, np.ndarray], bare: np.ndarray) -> list[Measurement]:
    """Two figures of each: the time that went by, and the time that the cores worked."""
    found = []
    for name, values in milliseconds.items():
        for what, value, base in zip(("", ", core time"), values.tolist(), bare.tolist(), strict=True):
            beside = () if name == BARE else (value / base, f"{BARE}{what}")
            found.append(Measurement(f"{of}: {name}{what}", value, "ms", "time", *beside))
    return found


if __name__ == "__main__":
    main()
