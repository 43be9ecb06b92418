"""Published models of all three tasks: signatures and warm-up requests as real ones have, plain rules inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from components.serving_check.model_server import write_warmup_requests
from serving.answers import UnknownRule
from serving.missing_values import MISSING_FLOAT
from serving.model_store import publish
from serving.signatures import image, tabular, text
from serving.signatures.common import CLASSIFY, VOCABULARY, Labels, ServedModel, export
from tests.serving import colour_photos
from tests.serving.colour_photos import photo
from transform.image import preprocessing_fn

PATIENTS = {
    "age": np.array([63, 41]),
    "oldpeak": np.array([2.3, MISSING_FLOAT], np.float32),
    "thal": np.array([b"fixed", b"normal"], object),
}
# Against whom a patient is explained: somebody of 50, of whom the rest is not known.
BACKGROUND = {
    "age": np.array([50]),
    "oldpeak": np.array([MISSING_FLOAT], np.float32),
    "thal": np.array([b""], object),
}
ORDERS = 4
REVIEWS = {"text": np.array([b"A good film.", b"Dull."], object)}
PHOTOS = {"image_bytes": np.array([photo("red"), photo("blue", "JPEG")], object)}
PATIENT_FEATURES = {
    "age": tf.io.VarLenFeature(tf.int64),
    "oldpeak": tf.io.VarLenFeature(tf.float32),
    "thal": tf.io.VarLenFeature(tf.string),
    "target": tf.io.VarLenFeature(tf.string),
}


def publish_all(folder: Path) -> dict[str, str]:
    """The base paths of `patients`, `photos` and `reviews`."""
    publishers = {"patients": publish_patients, "photos": publish_photos, "reviews": publish_reviews}
    return {name: publisher(folder / name) for name, publisher in publishers.items()}


def publish_patients(base_path: Path, build: str = "1", unknown: UnknownRule | None = None) -> str:
    """Who is older than 50, or whose thal is fixed, is rather ill: sigmoid((age - 50) / 10 + 2 [thal is fixed])."""

    def predict(features: Mapping[str, tf.SparseTensor]) -> tf.Tensor:
        age = tf.sparse.to_dense(features["age"], 50)[:, 0]
        thal = tf.sparse.to_dense(features["thal"], "")[:, 0]
        return _two_classes(
            tf.sigmoid((tf.cast(age, tf.float32) - 50) / 10 + 2 * tf.cast(tf.equal(thal, "fixed"), tf.float32))
        )

    labels = _labels(base_path, ["disease", "healthy"], unknown)
    background = {name: np.array(values[:, None]) for name, values in BACKGROUND.items()}
    model = tabular.served_model(
        _AsTheyAre(), predict, labels, PATIENT_FEATURES, "target", classes=2, explain=(ORDERS, background)
    )
    return _publish(base_path, model, PATIENTS, build)


def publish_photos(
    base_path: Path,
    probabilities: Callable[[tf.Tensor], tf.Tensor] = colour_photos.nearest_colour,
    explain: int | None = ORDERS,
) -> str:
    """By default, the colour that is nearest to the photo's average one."""
    labels = _labels(base_path, colour_photos.LABELS)
    model = image.served_model(
        _PhotoTransform(),
        lambda features: probabilities(features["image"]),
        labels,
        {"image": tf.io.VarLenFeature(tf.string)},
        "label",
        classes=len(colour_photos.LABELS),
        explain=explain,
    )
    return _publish(base_path, model, PHOTOS)


def publish_reviews(base_path: Path, praise: str = "good") -> str:
    """A text with praise in it is fresh by 0.9, any other by 0.25."""

    def predict(features: Mapping[str, tf.SparseTensor]) -> tf.Tensor:
        texts = tf.sparse.to_dense(features["review"], "")[:, 0]
        return _two_classes(tf.where(tf.strings.regex_full_match(texts, f"(?s).*{praise}.*"), 0.9, 0.25))

    labels = _labels(base_path, ["fresh", "rotten"])
    transform = _AsTheyAre()
    resources = {"transform": transform, "labels": labels}
    spec = {"review": tf.io.VarLenFeature(tf.string)}
    model = text.served_model(
        transform, predict, labels, spec, "review", classes=2, resources=resources, explain=ORDERS
    )
    return _publish(base_path, model, REVIEWS)


class _AsTheyAre(tf.Module):
    def __call__(self, features: Mapping[str, tf.SparseTensor]) -> dict[str, tf.SparseTensor]:
        return dict(features)


class _PhotoTransform(tf.Module):
    """The real preprocessing of photos, which learns nothing from data but the labels."""

    def __call__(self, features: Mapping[str, tf.SparseTensor]) -> dict[str, tf.Tensor]:
        return preprocessing_fn(features, {"preprocessing": colour_photos.OPTIONS.model_dump_json()})


def _two_classes(first: tf.Tensor) -> tf.Tensor:
    return tf.stack([first, 1 - first], axis=1)


def _labels(base_path: Path, names: list[str], unknown: UnknownRule | None = None) -> Labels:
    folder = base_path.with_name(f"{base_path.name}-vocabulary")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / VOCABULARY).write_text("".join(f"{name}\n" for name in names))
    return Labels(str(folder / VOCABULARY), unknown=unknown)


def _publish(base_path: Path, model: ServedModel, inputs: Mapping[str, np.ndarray], build: str = "1") -> str:
    """Two warm-up requests, as a run leaves them: the first example alone, then all of them."""
    saved = str(base_path.with_name(f"{base_path.name}-export"))
    export(model, saved)
    requests = [(CLASSIFY, {name: values[:count] for name, values in inputs.items()}) for count in (1, 2)]
    write_warmup_requests(saved, requests)
    publish(str(base_path), saved, {"data_fingerprint": "data", "code_fingerprint": build})
    return str(base_path)
