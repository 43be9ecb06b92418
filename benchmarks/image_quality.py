"""Accuracy on photos: whole pipelines beside scikit-learn, on the same stratified 80/20 split.

    .venv/bin/python -m benchmarks.image_quality
    .venv/bin/python -m benchmarks.image_quality --photos flowers --weights inception_v3.weights.h5

Digits: configs/digits.yaml beside a support vector machine on the 64 pixels. Photos in class folders, where they are
given: configs/flowers.yaml with these weights beside a logistic regression on the pooled features of the backbone's
last block. The accuracy is the Evaluator's, of the served signature; the time is the whole pipeline's.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from components.image_example_gen.list_photos import list_photos
from components.image_example_gen.photo import Photo
from pipeline import datasets
from pipeline.config import RunConfig, load_config
from pipeline.run import run
from serving.model_store import served_version
from trainers.fine_tune_options import FineTuneOptions
from trainers.image_backbone import image_backbone
from transform.image import usable_pixels
from transform.image_options import ImageOptions

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", help="class folders; without them, only the digits")
    parser.add_argument("--weights", default="imagenet", help="trainer.weights for the photos")
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    options = parser.parse_args()
    lines = []
    if options.photos:
        settings = [f"trainer.weights={options.weights}"]
        lines.append(compare("flowers", options.photos, settings, options.seed, linear_probe))
    lines.append(compare("digits", str(datasets.fetch("digits")), ["data.dataset=null"], options.seed, pixel_svm))
    print(f"\n{'':10} {'ingraph':>8} {'seconds':>8}  beside it")
    print("\n".join(lines))


def compare(name: str, folder: str, settings: list[str], seed: int, other) -> str:  # noqa: ANN001
    """A line of the table."""
    photos = list_photos(folder)
    labels = np.array([photo.label for photo in photos])
    train, test = next(StratifiedShuffleSplit(n_splits=1, test_size=0.2, random_state=seed).split(labels, labels))
    with tempfile.TemporaryDirectory() as workdir:
        for split, rows in (("train", train), ("val", test)):
            for row in rows:
                link(photos[row], Path(workdir) / "photos" / split)
        settings = [f"data.path={workdir}/photos", "evaluation.at_least.accuracy=0.5", *settings]
        config = load_config(str(CONFIGS / f"{name}.yaml"), settings)
        started = time.monotonic()
        run(config, workdir)
        seconds = time.monotonic() - started
        version = served_version(f"{workdir}/models/{config.name}")
    if version is None:
        raise SystemExit(f"{name}: nothing was published")
    what, accuracy = other([photos[row] for row in train], [photos[row] for row in test], config)
    return f"{name:10} {version.provenance['metrics']['accuracy']:8.4f} {seconds:8.0f}  {what} {accuracy:.4f}"


def link(photo: Photo, folder: Path) -> None:
    """Put a photo into the class folder of a split."""
    (folder / photo.label).mkdir(parents=True, exist_ok=True)
    (folder / photo.label / Path(photo.file).name).symlink_to(Path(photo.file).resolve())


def pixel_svm(train: list[Photo], test: list[Photo], _: RunConfig) -> tuple[str, float]:
    """scikit-learn's SVC on the pixels."""

    def pixels(photos: list[Photo]) -> np.ndarray:
        return np.array([np.asarray(Image.open(photo.file)).reshape(-1) for photo in photos]) / 255

    model = SVC().fit(pixels(train), [photo.label for photo in train])
    return "SVC", float(model.score(pixels(test), [photo.label for photo in test]))


def linear_probe(train: list[Photo], test: list[Photo], config: RunConfig) -> tuple[str, float]:
    """scikit-learn's logistic regression on the mean of each channel of the last block."""
    assert isinstance(config.trainer, FineTuneOptions) and isinstance(config.preprocessing, ImageOptions)
    preprocessing = config.preprocessing
    backbone = image_backbone(config.trainer.backbone, config.trainer.weights, preprocessing)

    def features(photos: list[Photo]) -> np.ndarray:
        rows = []
        for start in range(0, len(photos), 32):
            files = [Path(photo.file).read_bytes() for photo in photos[start : start + 32]]
            pixels, _ = usable_pixels(np.array(files, object), preprocessing)
            rows.append(np.asarray(backbone(pixels, training=False)).mean(axis=(1, 2)))
        return np.concatenate(rows)

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    model.fit(features(train), [photo.label for photo in train])
    accuracy = float(model.score(features(test), [photo.label for photo in test]))
    return "logistic regression on the last block", accuracy


if __name__ == "__main__":
    main()
