"""Input pipeline of images: how busy training is kept by photos that are decoded as they are needed.

    .venv/bin/python -m benchmarks.image.input_pipeline

InceptionV3 is trained from scratch at 75x75, where a step is short and decoding counts most, once on JPEG files through
Transform's graph and once on the same batches ready in memory. The two take turns, so that whatever else the machine
does falls on both; the first turn of each is not counted. Told are the medians of the milliseconds a step, and of the
ratio in each turn, which is how busy the compute is kept.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from benchmarks.harness.pipelines import transform_graph
from benchmarks.harness.results import Goal, Measurement
from benchmarks.harness.running import report
from trainers.image.backbones import image_backbone
from trainers.image.batches import ImageTraining, image_training_batches
from trainers.image.fine_tuning import compile_classifier
from trainers.image.options import FineTuneOptions
from trainers.image.splits import image_transform, read_image_split, read_images
from trainers.splits import TransformGraph
from transform.image import preprocessing_fn
from transform.options import ImageOptions

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as `ingraph run` for photos


PHOTOS = 128
PREPROCESSING = ImageOptions(height=75, width=75)
SPEC = {name: tf.io.VarLenFeature(tf.string) for name in ("image", "label")}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--width", type=int, default=500, help="of the photos, in pixels; their height is three quarters"
    )
    parser.add_argument("--turns", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = write_images(f"{folder}/photos.gz", options.width)
        graph = transform_graph(
            preprocessing_fn, {"preprocessing": PREPROCESSING.model_dump_json()}, SPEC, file, folder
        )
        photos = read_images([file], image_transform(TransformGraph(graph)))
        trainer = FineTuneOptions(mode="fine_tune", weights="none")
        split = read_image_split(photos)
        training = ImageTraining(photos, split, 2, PREPROCESSING.scaling, trainer, Path(folder))
        backbone = image_backbone(trainer.backbone, trainer.weights, PREPROCESSING)
        pooled = keras.layers.GlobalAveragePooling2D()(backbone.output)
        model = keras.Model(backbone.input, keras.layers.Dense(2, activation="softmax")(pooled))
        compile_classifier(model, training)

        decoded = iter(image_training_batches(training)(0))
        ready_batches = cycle([next(decoded) for _ in range(training.steps)])
        seconds: dict[str, list[float]] = {"JPEG files": [], "ready tensors": []}
        for _ in range(1 + options.turns):
            for name, batches in (("JPEG files", decoded), ("ready tensors", ready_batches)):
                seconds[name].append(one_turn(model, batches, training.steps))
    files, ready = (np.array(turns[1:]) * 1000 for turns in seconds.values())
    report(
        "photos decoded as they are needed",
        [
            Measurement("a step on ready tensors", float(np.median(ready)), "ms", "time"),
            # The compute is to be kept busy for 90 % of the time.
            Measurement(
                "a step on JPEG files",
                float(np.median(files)),
                "ms",
                "time",
                float(np.median(files / ready)),
                "ready tensors",
                Goal(1 / 0.9),
            ),
        ],
    )


def one_turn(model: keras.Model, batches: Iterator[Any], steps: int) -> float:
    """Seconds of a step."""
    started = time.perf_counter()
    for _ in range(steps):
        model.train_on_batch(*next(batches))
    return (time.perf_counter() - started) / steps


def write_images(path: str, width: int) -> str:
    """JPEG files with the smooth colours and the noise of photos."""
    chance = np.random.default_rng(0)
    with tf.io.TFRecordWriter(path, "GZIP") as writer:
        for number in range(PHOTOS):
            smooth = Image.fromarray(chance.integers(0, 256, [6, 8, 3], np.uint8)).resize((width, width * 3 // 4))
            noisy = np.asarray(smooth) + chance.normal(0, 8, [width * 3 // 4, width, 3])
            file = io.BytesIO()
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
            example = tf.train.Example()
            example.features.feature["image"].bytes_list.value.append(file.getvalue())
            example.features.feature["label"].bytes_list.value.append(str(number % 2).encode())
            writer.write(example.SerializeToString())
    return path


if __name__ == "__main__":
    main()
