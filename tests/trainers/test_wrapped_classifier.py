"""Existing classifiers of each kind, answering with what they answer themselves."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from trainers.errors import TrainingError
from trainers.image.models import ImageClassifier
from trainers.image.options import (
    IMAGENET,
    WrapOptions,
    keras_pixel_format,
    read_label_file,
    read_trainer_options,
)
from trainers.image.splits import Images
from trainers.image.wrap import ScalingTrials, check_scaling, tried_scalings, wrapped_classifier
from transform.image import scale, unscaled
from transform.options import ImageOptions, PixelFormat

SIZE, CLASSES = 16, 4
PIXELS = np.random.default_rng(0).uniform(-1, 1, [5, SIZE, SIZE, 3]).astype(np.float32)
PREPROCESSING = ImageOptions(height=SIZE, width=SIZE)


def network(outputs: int = CLASSES, activation: str | None = "softmax") -> keras.Model:
    keras.utils.set_random_seed(1)
    pixels = keras.Input([SIZE, SIZE, 3])
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(6, 3, activation="relu")(pixels))
    return keras.Model(pixels, keras.layers.Dense(outputs, activation=activation)(features * 20.0))


class HubModel(tf.Module):
    """As TF-Hub's inception_v3/classification: logits, the first of them the background's; several end points."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        source = np.random.default_rng(2)
        self.kernel = tf.Variable(source.normal(size=[3, 3, 3, outputs]), dtype=tf.float32)
        self.bias = tf.Variable(source.normal(size=[outputs]), dtype=tf.float32)

    def logits(self, pixels: tf.Tensor) -> tf.Tensor:
        convolved = tf.nn.conv2d(pixels, self.kernel, 1, "SAME") + self.bias
        return tf.reduce_mean(tf.nn.relu(convolved), [1, 2]) * 3

    @tf.function(input_signature=[tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32, name="inputs")])
    def only_logits(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": self.logits(inputs)}

    @tf.function(input_signature=[tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32, name="images")])
    def end_points(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": self.logits(images), "predictions": tf.nn.softmax(self.logits(images))}

    @tf.function(input_signature=[tf.TensorSpec([1, SIZE, SIZE, 3], tf.float32)])
    def one_photo(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": self.logits(images)}


def save_hub_model(path: Path, outputs: int) -> HubModel:
    model = HubModel(outputs)
    signatures = {
        "serving_default": model.only_logits,
        "image_classification": model.end_points,
        "one_photo": model.one_photo,
    }
    tf.saved_model.save(model, str(path), signatures)
    return model


def softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def answers(classes: int = CLASSES, preprocessing: ImageOptions = PREPROCESSING, **options) -> np.ndarray:
    classifier = wrapped_classifier(WrapOptions(mode="wrap", **options), preprocessing, classes)
    return classifier.predict(tf.constant(PIXELS)).numpy()


def test_a_keras_file_answers_with_its_probabilities(tmp_path):
    model = network()
    model.save(tmp_path / "photos.keras")
    np.testing.assert_allclose(
        answers(classifier=f"{tmp_path}/photos.keras"), model.predict(PIXELS, verbose=0), atol=1e-6
    )


def test_a_keras_file_of_logits_answers_with_their_softmax(tmp_path):
    model = network(activation=None)
    model.save(tmp_path / "photos.keras")
    expected = softmax(model.predict(PIXELS, verbose=0))
    assert expected.argmax(axis=1).tolist() != [0] * 5
    np.testing.assert_allclose(answers(classifier=f"{tmp_path}/photos.keras", outputs="logits"), expected, atol=1e-6)


def test_a_weights_file_fills_the_named_architecture(tmp_path):
    preprocessing = ImageOptions(height=32, width=32, scaling="minus_one_to_one")
    model = keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3), classes=CLASSES)
    model.get_layer("conv_preds").bias.assign([3.0, 0.0, 1.0, -1.0])
    model.save_weights(tmp_path / "photos.weights.h5")
    options = WrapOptions(mode="wrap", classifier="MobileNet", weights=f"{tmp_path}/photos.weights.h5")
    pixels = tf.image.resize(PIXELS, [32, 32])
    served = wrapped_classifier(options, preprocessing, CLASSES).predict(pixels).numpy()
    np.testing.assert_allclose(served, model.predict(pixels, verbose=0), atol=1e-6)
    assert served[0, 0] > 0.7


def test_raw_pixels_reach_a_model_as_keras_preprocesses_them_for_it(tmp_path):
    model = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=CLASSES)
    model.save_weights(tmp_path / "photos.weights.h5")
    options = WrapOptions(mode="wrap", classifier="ResNet50", weights=f"{tmp_path}/photos.weights.h5")
    preprocessing = ImageOptions(height=32, width=32, scaling="raw")
    pixels = np.random.default_rng(5).uniform(0, 255, [3, 32, 32, 3]).astype(np.float32)
    served = wrapped_classifier(options, preprocessing, CLASSES).predict(tf.constant(pixels)).numpy()
    expected = model.predict(keras.applications.resnet50.preprocess_input(pixels.copy()), verbose=0)
    np.testing.assert_allclose(served, expected, atol=1e-5)
    assert np.abs(served - model.predict(pixels, verbose=0)).max() > 1e-3


def test_a_saved_model_that_keras_exported_answers_with_its_probabilities(tmp_path):
    model = network()
    model.export(tmp_path / "exported", verbose=False)
    np.testing.assert_allclose(answers(classifier=f"{tmp_path}/exported"), model.predict(PIXELS, verbose=0), atol=1e-6)


def test_the_background_of_a_hub_model_is_no_label(tmp_path):
    model = save_hub_model(tmp_path / "hub", CLASSES + 1)
    logits = model.logits(tf.constant(PIXELS)).numpy()
    served = answers(classifier=f"{tmp_path}/hub", outputs="logits", background_first=True)
    np.testing.assert_allclose(served, softmax(logits[:, 1:]), atol=1e-6)


def test_the_background_of_probabilities_is_shared_among_the_labels(tmp_path):
    model = save_hub_model(tmp_path / "hub", CLASSES + 1)
    logits = model.logits(tf.constant(PIXELS)).numpy()
    options = {"signature": "image_classification", "output": "predictions", "background_first": True}
    served = answers(classifier=f"{tmp_path}/hub", **options)
    np.testing.assert_allclose(served, softmax(logits[:, 1:]), atol=1e-6)


def test_the_signature_and_the_output_of_a_saved_model_can_be_chosen(tmp_path):
    model = save_hub_model(tmp_path / "hub", CLASSES)
    served = answers(classifier=f"{tmp_path}/hub", signature="image_classification", output="predictions")
    np.testing.assert_allclose(served, softmax(model.logits(tf.constant(PIXELS)).numpy()), atol=1e-6)


def test_a_local_hub_directory_loads_by_its_handle_too(tmp_path):
    model = save_hub_model(tmp_path / "hub", CLASSES)
    served = answers(classifier=f"file://{tmp_path}/hub", outputs="logits")
    np.testing.assert_allclose(served, softmax(model.logits(tf.constant(PIXELS)).numpy()), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"signature": "predict"}, r"has no signature 'predict'; set trainer.signature to one of its own: image_cl"),
        ({"signature": "image_classification"}, r"has several outputs; set trainer.output to one of logits, predictio"),
        ({"output": "probabilities"}, r"has no output 'probabilities'; set trainer.output to one of logits"),
        ({"signature": "one_photo"}, r"takes float32 \(1, 16, 16, 3\), preprocessing makes float32 \(None, 16, 16, 3"),
        ({"outputs": "logits"}, r"answers with \(5, 5\), expected \[batch, 4\].*give its labels"),
    ],
)
def test_what_does_not_fit_a_saved_model_is_said(tmp_path, options, message):
    save_hub_model(tmp_path / "hub", CLASSES + 1)
    with pytest.raises(TrainingError, match=message):
        answers(classifier=f"{tmp_path}/hub", **options)


def test_pixels_of_another_size_are_said_before_anything_is_exported(tmp_path):
    network().save(tmp_path / "photos.keras")
    save_hub_model(tmp_path / "hub", CLASSES)
    other = ImageOptions(height=20, width=SIZE)
    with pytest.raises(TrainingError, match=r"takes pixels of the shape \(16, 16, 3\), preprocessing makes \(20, 16,"):
        answers(classifier=f"{tmp_path}/photos.keras", preprocessing=other)
    with pytest.raises(TrainingError, match=r"takes float32 \(None, 16, 16, 3\).*set preprocessing.height"):
        answers(classifier=f"{tmp_path}/hub", preprocessing=other)


def test_weights_of_another_head_are_said(tmp_path):
    preprocessing = ImageOptions(height=32, width=32)
    keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3), classes=7).save_weights(
        tmp_path / "seven.weights.h5"
    )
    options = WrapOptions(mode="wrap", classifier="MobileNet", weights=f"{tmp_path}/seven.weights.h5")
    with pytest.raises(TrainingError, match=r"cannot be loaded into a MobileNet with 4 outputs that takes 32x32"):
        wrapped_classifier(options, preprocessing, CLASSES)


def test_what_is_no_model_is_said(tmp_path):
    (tmp_path / "text.keras").write_text("hello")
    with pytest.raises(TrainingError, match=r"text.keras: the model cannot be loaded: .*save it by model.save"):
        answers(classifier=f"{tmp_path}/text.keras")
    with pytest.raises(TrainingError, match=r"nothing: the model cannot be loaded: .*a directory with saved_model.pb"):
        answers(classifier=f"{tmp_path}/nothing")


def test_imagenet_weights_that_cannot_be_downloaded_name_the_alternatives(tmp_path, monkeypatch):
    from keras.src.applications import mobilenet
    from keras.src.backend import config

    # Port 9 of this machine: nothing answers there, on whatever network the test runs.
    monkeypatch.setattr(mobilenet, "BASE_WEIGHT_PATH", "http://127.0.0.1:9/")
    monkeypatch.setattr(config, "_KERAS_DIR", str(tmp_path))
    options = WrapOptions(mode="wrap", classifier="MobileNet")
    with pytest.raises(TrainingError) as stopped:
        wrapped_classifier(options, ImageOptions(height=224, width=224), 1000)
    sentence = str(stopped.value)
    assert sentence.startswith("the ImageNet weights of MobileNet cannot be downloaded (URL fetch failure on ")
    assert sentence.endswith(
        "set trainer.weights to a .weights.h5 file with the head, or trainer.classifier to a .keras file or a "
        "directory of a SavedModel"
    )


def saved(path: Path, layers: list[keras.layers.Layer]) -> str:
    keras.Sequential([keras.Input([SIZE, SIZE + 4, 3]), *layers, *small_head()]).save(path)
    return str(path)


def small_head() -> list[keras.layers.Layer]:
    return [keras.layers.Conv2D(2, 3), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(CLASSES)]


IMAGENET_MEAN, IMAGENET_VARIANCE = [0.485, 0.456, 0.406], [0.229**2, 0.224**2, 0.225**2]


@pytest.mark.parametrize(
    ("layers", "scaling"),
    [
        ([keras.layers.Rescaling(1 / 255)], "raw"),
        ([keras.layers.RandomFlip(), keras.layers.Rescaling(1 / 127.5, -1)], "raw"),
        ([keras.layers.Rescaling(2.0, -1.0)], "zero_to_one"),
        ([keras.layers.Rescaling(127.5, 127.5)], "minus_one_to_one"),
        ([keras.layers.Normalization(mean=IMAGENET_MEAN, variance=IMAGENET_VARIANCE)], "zero_to_one"),
        (
            [
                keras.layers.Rescaling(1 / 255),
                keras.layers.Normalization(mean=IMAGENET_MEAN, variance=IMAGENET_VARIANCE),
            ],
            "raw",
        ),
        ([keras.layers.Rescaling(7.0)], None),
        ([], None),
    ],
)
def test_the_first_layers_of_a_keras_file_say_its_scaling(tmp_path, layers, scaling):
    path = saved(tmp_path / "photos.keras", layers)
    options = WrapOptions(mode="wrap", classifier=path)
    assert options.pixel_format() == PixelFormat(SIZE, SIZE + 4, scaling)
    if scaling is None:
        with pytest.raises(
            ValueError, match=r"preprocessing\.scaling is missing, and nothing that can be read of train"
        ):
            ImageOptions().completed(options.pixel_format(), ())
    given = ImageOptions(scaling="zero_to_one").completed(options.pixel_format(), ("a", "b"))
    assert (given.height, given.width, given.scaling) == (SIZE, SIZE + 4, "zero_to_one")


def test_arithmetic_and_the_name_of_an_architecture_say_the_scaling_too(tmp_path):
    pixels = keras.Input([32, 32, 3])
    backbone = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg")
    scaled = keras.Model(pixels, backbone(keras.applications.mobilenet_v2.preprocess_input(pixels)))
    backbone.save(tmp_path / "named.keras")
    scaled.save(tmp_path / "scaled.keras")
    keras.Model(pixels, backbone(pixels)).save(tmp_path / "within.keras")
    read = {name: keras_pixel_format(tmp_path / f"{name}.keras") for name in ("named", "scaled", "within")}
    assert read == {
        "named": PixelFormat(32, 32, "minus_one_to_one"),
        "scaled": PixelFormat(32, 32, "raw"),
        "within": PixelFormat(32, 32, "minus_one_to_one"),
    }


def test_of_what_is_no_keras_model_and_of_a_saved_model_no_scaling_is_known(tmp_path):
    (tmp_path / "text.keras").write_text("hello")
    assert keras_pixel_format(tmp_path / "text.keras").scaling is None
    assert WrapOptions(mode="wrap", classifier=f"{tmp_path}/hub").pixel_format().scaling is None
    assert WrapOptions(mode="wrap", classifier="EfficientNetB0").pixel_format() == PixelFormat(224, 224, "raw")


def trials(labelled: int, chosen: str, trained_with: str = "minus_one_to_one") -> ScalingTrials:
    """Photos of four colours, of which some have labels, before a classifier that was trained with one scaling."""
    source = np.random.default_rng(3)
    truth = source.integers(0, CLASSES, 40)
    centres = np.array([[60, 60, 60], [200, 70, 60], [60, 200, 80], [200, 200, 190]])
    colours = (centres[truth] + source.normal(0, 15, [40, 3])).clip(0, 255).astype(np.float32)
    pixels = np.tile(colours[:, None, None], [1, 4, 4, 1])

    def predict(given: tf.Tensor) -> tf.Tensor:
        raw = unscaled(tf.reduce_mean(given, [1, 2]), trained_with)
        return tf.nn.softmax(-tf.reduce_sum((raw[:, None] - centres[None].astype(np.float32)) ** 2, axis=2) / 6000)

    batch = {
        "record": tf.constant([str(number) for number in range(40)]),
        "image": scale(tf.constant(pixels), chosen),
        "label": tf.constant(np.where(np.arange(40) < labelled, truth, -1)),
        "error": tf.constant([""] * 39 + ["image is damaged"]),
    }
    photos = Images(tf.data.Dataset.range(40), lambda numbers: {k: tf.gather(v, numbers) for k, v in batch.items()})
    classifier = ImageClassifier(predict, None)
    return tried_scalings(classifier, ImageOptions(height=4, width=4, scaling=chosen), photos)


@pytest.mark.parametrize("labelled", [0, 39])
@pytest.mark.parametrize("right", ["minus_one_to_one", "zero_to_one", "raw"])
def test_a_wrong_scaling_is_refused_and_the_right_one_is_not(labelled, right):
    for chosen in ("minus_one_to_one", "zero_to_one", "raw"):
        found = trials(labelled, chosen, right)
        if chosen == right:
            check_scaling(found, chosen)
            assert found.trials[chosen].labels == CLASSES and found.photos == 39
            assert f"{chosen}: confidence 0." in str(found) and ("right" in str(found)) == (labelled > 0)
            assert found.as_provenance()["scalings"]["told"] == labelled
        else:
            with pytest.raises(TrainingError, match=f"{chosen} looks wrong, .* as {right}: answers to 39 photos"):
                check_scaling(found, chosen)


def test_photos_are_read_in_the_batches_of_a_dataset_by_one_graph_for_all_splits():
    traced = []

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def transform(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        traced.append(serialized)
        return {"label": tf.strings.to_number(serialized, tf.int64)}

    many, few, bad = (
        Images(tf.data.Dataset.from_tensor_slices(records), transform)
        for records in ([str(number) for number in range(70)], ["3", "1"], ["4", "five"])
    )
    read = [{name: values.numpy().tolist() for name, values in batch.items()} for batch in many.read(32)]
    assert [len(batch["label"]) for batch in read] == [32, 32, 6]
    assert read == [
        {name: values.tolist() for name, values in batch.items()} for batch in many.batches(32).as_numpy_iterator()
    ]
    assert [batch["label"].numpy().tolist() for batch in few.read(32, few.records.repeat(2).skip(1))] == [[1, 3, 1]]
    with pytest.raises(tf.errors.InvalidArgumentError, match="five"):
        list(bad.read(1))
    assert len(traced) == 1


def test_without_photos_no_scaling_is_tried():
    empty = Images(tf.data.Dataset.range(0), lambda numbers: {})
    found = tried_scalings(ImageClassifier(lambda pixels: pixels, None), PREPROCESSING, empty)
    check_scaling(found, "raw")
    assert found.as_provenance() == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classifier": "InceptionV4"}, "expected a model of keras.applications such as InceptionV3, a .keras file"),
        ({"classifier": "./m", "weights": "/a.weights.h5"}, "weights belong to a model of keras.applications"),
        ({"weights": "/a.h5"}, "weights: expected imagenet or the path of a .weights.h5 file"),
        ({"classifier": "a.keras", "signature": "predict"}, "signature and output are for a SavedModel"),
    ],
)
def test_options_that_fit_nothing_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        WrapOptions(mode="wrap", **options)


def test_options_survive_their_way_to_the_trainer():
    options = WrapOptions(mode="wrap", classifier="/models/hub", output="logits", outputs="logits")
    assert read_trainer_options(options.model_dump_json()) == options


def test_imagenets_labels_are_the_thousand_in_the_order_of_keras():
    labels = read_label_file(IMAGENET, background_first=False)
    assert len(set(labels)) == len(labels) == 1000
    known = {0: "tench", 1: "goldfish", 65: "sea snake", 151: "Chihuahua", 284: "Siamese cat", 386: "African elephant",
             817: "sports car", 999: "toilet tissue"}  # fmt: skip
    assert {number: labels[number] for number in known} == known


def test_imagenets_two_cranes_and_two_maillots_have_names_of_their_own():
    labels = read_label_file(IMAGENET, background_first=True)
    assert [labels[number] for number in (134, 517, 638, 639)] == [
        "crane bird",
        "crane",
        "maillot",
        "maillot tank suit",
    ]


def test_a_label_file_may_begin_with_the_background(tmp_path):
    file = tmp_path / "labels.txt"
    file.write_text("background\r\nSiamese cat\r\ntabby\r\n\r\n")
    assert read_label_file(str(file), background_first=True) == ("Siamese cat", "tabby")
    assert read_label_file(str(file), background_first=False) == ("background", "Siamese cat", "tabby")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"crane\nheron\ncrane\n", "line 3 is 'crane' as line 1 is; .*write both differently"),
        (b"crane\n\nheron\n", "line 2 is empty; expected one label a line"),
        (b"crane\n", "expected at least two labels, one a line, found 1"),
        (b"gr\xfcn\nrot\n", "the labels cannot be read: .*save them as UTF-8"),
    ],
)
def test_a_label_file_that_does_not_name_each_class_once_is_refused(tmp_path, content, message):
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_label_file(f"{tmp_path}/labels.txt", background_first=False)
