"""Photos: time and accuracy of a whole pipeline, beside Keras and scikit-learn on the same stratified 80/20 split.

    .venv/bin/python -m benchmarks.image.quality
    INGRAPH_TEST_DATA=... .venv/bin/python -m benchmarks.image.quality --flowers --photos-per-class 20

Digits: configs/digits.yaml beside a support vector machine on the 64 pixels; its time beside Keras training the same
network on pixels that are ready. Flowers: configs/flowers.yaml beside a logistic regression on the pooled features of
the backbone's last block, in accuracy and in time. The accuracy is the Evaluator's, of the served signature.
"""

from __future__ import annotations

import argparse
import os
import runpy
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from benchmarks.harness.pipelines import CONFIGS, beside_script, timed_run
from benchmarks.harness.results import Goal, Measurement
from benchmarks.harness.running import TEST_DATA, report
from components.image_example_gen.image_files import ImageFile, list_images
from pipeline import demo_data
from pipeline.config import load_config
from pipeline.options import RunConfig
from trainers.image.backbones import backbone_blocks, image_backbone, joined, pooled_blocks
from trainers.image.options import FineTuneOptions
from transform.image import usable_pixels
from transform.options import ImageOptions

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as `ingraph run` for photos


TIMED_STEPS = 15

Images = Sequence[ImageFile]
# The names of a model and of a script, the accuracy of the one and the seconds of the other.
Baseline = tuple[str, float, str, float]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flowers", action="store_true", help=f"those in ${TEST_DATA}, instead of the digits")
    parser.add_argument("--photos-per-class", type=int, help="take no more; all where it is not given")
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    options = parser.parse_args()
    if options.flowers and TEST_DATA not in os.environ:
        parser.error(f"--flowers: the environment variable {TEST_DATA} is to name the folder with the flowers")
    with tempfile.TemporaryDirectory() as folder:
        if options.flowers:
            data = Path(os.environ[TEST_DATA])
            photos, settings = list_images(str(data / "flowers")), [f"trainer.weights={keras_weights(data, folder)}"]
            found = compared("flowers", photos, settings, options, linear_probe)
        else:
            photos = list_images(str(demo_data.fetch("digits")))
            found = compared("digits", photos, ["data.dataset=null"], options, pixel_svm)
    report(f"{'flowers' if options.flowers else 'digits'}: a whole pipeline", found)


def compared(
    name: str,
    photos: Images,
    settings: list[str],
    options: argparse.Namespace,
    baseline: Callable[[Images, Images, RunConfig], Baseline],
) -> list[Measurement]:
    """Accuracy first, then times."""
    photos = first_of_each_class(photos, options.photos_per_class)
    labels = np.array([photo.label for photo in photos])
    chance = StratifiedShuffleSplit(n_splits=1, test_size=0.2, random_state=options.seed)
    train, test = ([photos[row] for row in rows] for rows in next(chance.split(labels, labels)))
    with tempfile.TemporaryDirectory() as folder:
        for split, chosen in (("train", train), ("val", test)):
            for photo in chosen:
                link(photo, Path(folder) / split)
        settings = [f"data.path={folder}", "evaluation.at_least.accuracy=0.5", *settings]
        run = timed_run(name, settings)
        model, accuracy, script, seconds = baseline(train, test, load_config(str(CONFIGS / f"{name}.yaml"), settings))
    ours = run.metrics["accuracy"]
    return [
        Measurement(model, accuracy, "accuracy", "quality"),
        Measurement("ingraph", ours, "accuracy", "quality", ours / accuracy, model, Goal(0.99)),
        *beside_script(run, script, seconds),
    ]


def first_of_each_class(photos: Images, count: int | None) -> Images:
    """The first `count` photos of each class, all where it is None."""
    if count is None:
        return photos
    seen: dict[str, int] = {}
    chosen = []
    for photo in photos:
        seen[photo.label] = seen.get(photo.label, 0) + 1
        if seen[photo.label] <= count:
            chosen.append(photo)
    return chosen


def keras_weights(data: Path, folder: str) -> str:
    """The pretrained backbone beside the photos, as a weights file in `folder`."""
    weights = f"{folder}/inception_v3.weights.h5"
    runpy.run_path(str(data / "to_keras_weights.py"))["main"](str(data / "inception_v3_notop_8bit.npz"), weights)
    return weights


def link(photo: ImageFile, folder: Path) -> None:
    """Put a photo into the class folder of a split."""
    (folder / photo.label).mkdir(parents=True, exist_ok=True)
    (folder / photo.label / Path(photo.file).name).symlink_to(Path(photo.file).resolve())


def pixel_svm(train: Images, test: Images, config: RunConfig) -> Baseline:
    """scikit-learn's SVC on the pixels; and Keras on the pixels as the network gets them."""

    def pixels(photos: Images) -> np.ndarray:
        return np.array([np.asarray(Image.open(photo.file)).reshape(-1) for photo in photos]) / 255

    model = SVC().fit(pixels(train), [photo.label for photo in train])
    accuracy = float(model.score(pixels(test), [photo.label for photo in test]))
    return "SVC on the pixels", accuracy, "Keras, from the same pixels", keras_seconds(train, config)


def keras_seconds(photos: Images, config: RunConfig) -> float:
    """Seconds of as many epochs on ready pixels, reckoned from TIMED_STEPS steps."""
    import keras

    assert isinstance(config.trainer, FineTuneOptions) and isinstance(config.preprocessing, ImageOptions)
    started = time.perf_counter()
    batch_size = config.trainer.batch_size
    files = np.array([Path(photo.file).read_bytes() for photo in photos], object)
    pixels = usable_pixels(files, config.preprocessing)[0].numpy()
    classes, numbers = np.unique([photo.label for photo in photos], return_inverse=True)
    backbone = image_backbone(config.trainer.backbone, config.trainer.weights, config.preprocessing)
    blocks = backbone_blocks(backbone)[-1:] if config.trainer.blocks == "auto" else config.trainer.blocks
    pooled = joined(list(pooled_blocks(backbone, blocks).values()))
    model = keras.Model(backbone.input, keras.layers.Dense(len(classes), activation="softmax")(pooled))
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(pixels[:batch_size], numbers[:batch_size], verbose=0)
    ready = time.perf_counter()
    used = batch_size * TIMED_STEPS
    model.fit(pixels[:used], numbers[:used], batch_size=batch_size, verbose=0)
    step = (time.perf_counter() - ready) / TIMED_STEPS
    return ready - started + step * config.trainer.epochs * len(photos) / batch_size


def linear_probe(train: Images, test: Images, config: RunConfig) -> Baseline:
    """scikit-learn's logistic regression on the mean of each channel of the last block."""
    assert isinstance(config.trainer, FineTuneOptions) and isinstance(config.preprocessing, ImageOptions)
    preprocessing = config.preprocessing
    backbone = image_backbone(config.trainer.backbone, config.trainer.weights, preprocessing)

    def features(photos: Images) -> np.ndarray:
        rows = []
        for start in range(0, len(photos), 32):
            files = [Path(photo.file).read_bytes() for photo in photos[start : start + 32]]
            pixels, _ = usable_pixels(np.array(files, object), preprocessing)
            rows.append(np.asarray(backbone(pixels, training=False)).mean(axis=(1, 2)))
        return np.concatenate(rows)

    started = time.perf_counter()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    model.fit(features(train), [photo.label for photo in train])
    accuracy = float(model.score(features(test), [photo.label for photo in test]))
    seconds = time.perf_counter() - started
    return "logistic regression on the last block", accuracy, "logistic regression, from the files", seconds


if __name__ == "__main__":
    main()
