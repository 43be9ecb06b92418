"""Training of photos: what is learned from what, what is computed once, and how a killed training goes on."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pydantic import ValidationError
from tfx.components.trainer.fn_args_utils import FnArgs
from threadpoolctl import threadpool_info, threadpool_limits

from benchmarks.harness.pipelines import transform_graph
from pipeline.runners.beam_speedups import apply_beam_speedups
from serving.reference_predictions import example_id
from tests.pipeline.conftest import answers_over_both
from trainers.errors import TrainingError
from trainers.fitting import training_folder
from trainers.image import backbones
from trainers.image.backbones import backbone_blocks, image_backbone, kept_backbone
from trainers.image.batches import FrozenFeatures, ImageTraining, augmented, greyed
from trainers.image.fine_tuning import compile_classifier, fine_tuned
from trainers.image.heads import chosen_blocks, ridge_head
from trainers.image.models import ImageClassifier
from trainers.image.options import BACKBONES, AugmentationOptions, FineTuneOptions
from trainers.image.splits import Images, image_predictions, read_image_split
from trainers.image.train import run_fn
from transform.image import preprocessing_fn
from transform.options import ImageOptions

PROJECT = Path(__file__).resolve().parents[2]
PIXELS = ImageOptions(height=32, width=32)
CLASSES = 3


def photos(count: int = 60, bad: tuple[int, ...] = (), unlabelled: tuple[int, ...] = ()) -> tuple[Images, tf.Variable]:
    """Photos of one colour for each class, with noise; and how many of them were decoded so far."""
    decoded = tf.Variable(0, trainable=False)

    def transform(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        numbers = tf.strings.to_number(serialized, tf.int64)
        decoded.assign_add(tf.size(numbers))
        labels = numbers % CLASSES
        noise = tf.map_fn(
            lambda n: tf.random.stateless_uniform([32, 32, 3], [1, n], -0.5, 0.5),
            numbers,
            fn_output_signature=tf.float32,
        )
        pixels = 0.4 * tf.one_hot(labels, 3)[:, None, None, :] + noise
        is_bad = tf.reduce_any(numbers[:, None] == tf.constant([-1, *bad], tf.int64), axis=1)
        is_unlabelled = tf.reduce_any(numbers[:, None] == tf.constant([-1, *unlabelled], tf.int64), axis=1)
        return {
            "image": tf.where(is_bad[:, None, None, None], 0.0, pixels),
            "error": tf.where(is_bad, "image is damaged", ""),
            "label": tf.where(is_unlabelled, tf.constant(-1, tf.int64), labels),
        }

    records = tf.data.Dataset.from_tensor_slices([str(number) for number in range(count)])
    return Images(records, transform), decoded


def training(folder: Path, of: Images | None = None, **options) -> ImageTraining:
    folder.mkdir(exist_ok=True)
    of = of or photos()[0]
    # These classes are told by their colours alone.
    changes = {"grey": 0, **options.pop("augmentation", {})}
    chosen = FineTuneOptions(mode="fine_tune", augmentation=changes, **{"backbone": "MobileNet", **options})
    return ImageTraining(of, read_image_split(of), CLASSES, "minus_one_to_one", chosen, folder)


def predictions(classifier: ImageClassifier, of: Images | None = None) -> np.ndarray:
    return image_predictions(classifier, of or photos()[0], ["red", "green", "blue"]).probabilities


def accuracy(classifier: ImageClassifier) -> float:
    return float((predictions(classifier).argmax(axis=1) == np.arange(60) % CLASSES).mean())


def png(colour: Iterable[float], size: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), tuple(map(int, colour))).save(file, "PNG")
    return file.getvalue()


class Trainer:
    """run_fn on photos of one colour each, one execution after another."""

    def __init__(self, folder: Path, preprocessing: ImageOptions = PIXELS) -> None:
        self.folder = folder
        self.config = {"preprocessing": preprocessing.model_dump_json(), "code_fingerprint": "code"}
        colours = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}
        self.examples = f"{folder}/examples.gz"
        with tf.io.TFRecordWriter(self.examples, "GZIP") as file:
            for number in range(24):
                label, colour = [*colours.items()][number % 3]
                darker = [max(0, value - number) for value in colour]
                values = {"image": png(darker, 32), "label": label.encode()}
                features = {
                    name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
                    for name, value in values.items()
                }
                file.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
        apply_beam_speedups()
        spec = dict.fromkeys(["image", "label"], tf.io.FixedLenFeature([], tf.string))
        transform_graph(preprocessing_fn, self.config, spec, self.examples, str(folder))

    def run(self, execution: int, base_model: str | None, **options) -> tuple[str, dict]:
        """The export's directory, and the provenance."""
        chosen = FineTuneOptions(mode="fine_tune", **{"backbone": "MobileNet", **options})
        model = self.folder / f"Trainer/model/{execution}"
        run_fn(
            FnArgs(
                train_files=[self.examples],
                eval_files=[self.examples],
                transform_output=f"{self.folder}/graph",
                serving_model_dir=f"{model}/Format-Serving",
                model_run_dir=f"{self.folder}/Trainer/model_run/{execution}",
                base_model=base_model,
                custom_config={**self.config, "trainer": chosen.model_dump_json()},
            )
        )
        return f"{model}/Format-Serving", json.loads((model / "provenance.json").read_text())

    def unfinished(self) -> int:
        return len([*(self.folder / "Trainer/unfinished").iterdir()])


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory) -> str:
    """Weights of a small backbone, drawn once: not trained, and yet features that tell colours."""
    keras.utils.set_random_seed(1)
    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    image_backbone("MobileNet", "none", PIXELS).save_weights(path)
    return str(path)


def test_what_cannot_be_learned_from_is_left_out_and_counted(tmp_path, weights_file):
    some, _ = photos(bad=(3, 4), unlabelled=(4, 10))
    split = read_image_split(some)
    assert split.left_out == 3
    assert split.labels.tolist() == [number % CLASSES for number in range(60) if number not in (3, 4, 10)]
    assert split.fingerprint == read_image_split(photos()[0]).fingerprint
    assert split.fingerprint != read_image_split(photos(59)[0]).fingerprint
    classifier = fine_tuned(training(tmp_path, some, weights=weights_file, blocks=["conv_dw_4"]), PIXELS)
    reference = image_predictions(classifier, some, ["red", "green", "blue"])
    # A photo without a label has no truth to be measured by, and is answered all the same.
    assert reference.ids == [example_id(str(number).encode()) for number in range(60) if number not in (3, 4)]


def test_a_head_is_solved_on_features_that_are_computed_once_and_learns(tmp_path, weights_file):
    some, decoded = photos()
    task = training(tmp_path, some, weights=weights_file, blocks=["conv_dw_2", "conv_dw_4"])
    decoded.assign(0)
    classifier = fine_tuned(task, PIXELS)
    assert int(decoded.numpy()) == 60
    assert accuracy(classifier) == 1.0
    # The backbone is cut off behind the last block that the head sees.
    assert "conv_dw_5" not in [layer.name for layer in classifier.model.layers]


def test_trained_blocks_go_on_from_activations_that_are_computed_once_whatever_the_epochs(tmp_path, weights_file):
    some, decoded = photos()
    options = {"weights": weights_file, "blocks": ["conv_dw_2", "conv_dw_4"], "trained_blocks": 1}
    task = training(tmp_path, some, **options, epochs=4, learning_rate=0.001)
    frozen = fine_tuned(training(tmp_path / "frozen", weights=weights_file, blocks=options["blocks"]), PIXELS)
    decoded.assign(0)
    trained = fine_tuned(task, PIXELS)
    assert int(decoded.numpy()) == 2 * 60  # pooled features, and the activations at the cut
    assert accuracy(trained) == 1.0
    for layer, before in zip(trained.model.layers, frozen.model.layers, strict=True):
        weights = zip(layer.get_weights(), before.get_weights(), strict=True)
        changed = any(not np.array_equal(now, then) for now, then in weights)
        # Behind the cut at conv_dw_3, but for the normalization.
        assert changed == (layer.name in ("conv_pw_3", "conv_dw_4", "head")), layer.name


def test_copies_are_changed_photos_and_their_features_are_computed_once(tmp_path, weights_file):
    some, decoded = photos()
    task = training(
        tmp_path,
        some,
        weights=weights_file,
        blocks=["conv_dw_4"],
        augmentation={"flip": True, "crop": 0.3, "copies": 2},
    )
    decoded.assign(0)
    fine_tuned(task, PIXELS)
    assert int(decoded.numpy()) == 60
    features = np.load(tmp_path / "pooled/conv_dw_4.npy")
    assert len(features) == 3 * 60
    features = features.reshape(3, 60, -1)
    for one, other in ((0, 1), (1, 2)):
        assert np.abs(features[one] - features[other]).mean() > 0.01 * features[0].std()


def test_early_stopping_keeps_what_was_better_before(tmp_path, weights_file):
    options = {"weights": weights_file, "blocks": ["conv_dw_4"], "trained_blocks": 1, "epochs": 6}
    ruined = fine_tuned(training(tmp_path / "a", **options, learning_rate=30.0), PIXELS)
    kept_training = training(tmp_path / "b", **options, learning_rate=30.0, early_stopping_patience=2)
    assert 0 < len(kept_training.split.labels) - len(kept_training.rows) < 20
    kept = fine_tuned(kept_training, PIXELS)
    assert accuracy(ruined) < 0.9
    assert accuracy(kept) > 0.95
    (state,) = (tmp_path / "b/epochs").glob("[0-9]*")
    assert state.name == "2"  # of 6


def test_training_from_scratch_trains_every_layer_and_learns(tmp_path):
    options = {"weights": "none", "blocks": ["conv_dw_3"], "epochs": 4, "batch_size": 8, "learning_rate": 0.01}
    classifier = fine_tuned(training(tmp_path, **options, batch_norm_momentum=0.5, augmentation={"flip": True}), PIXELS)
    assert accuracy(classifier) > 0.9
    keras.utils.set_random_seed(0)
    before = image_backbone("MobileNet", "none", PIXELS)
    for layer in classifier.model.layers:
        if layer.weights and layer.name != "head":
            for now, then in zip(layer.get_weights(), before.get_layer(layer.name).get_weights(), strict=True):
                assert not np.array_equal(now, then), layer.name


def test_a_killed_training_goes_on_and_ends_where_an_uninterrupted_one_does(tmp_path, weights_file):
    options = {"weights": weights_file, "blocks": ["conv_dw_3"], "trained_blocks": 1, "epochs": 30, "batch_size": 8}
    script = (
        "import os, signal, sys, threading, time\n"
        "from pathlib import Path\n"
        f"sys.path[:0] = [{str(PROJECT)!r}, {str(Path(__file__).parent)!r}]\n"
        "import setuptools\n"
        "from test_image_trainer import PIXELS, fine_tuned, training\n"
        f"folder = Path({str(tmp_path / 'killed')!r})\n"
        "def kill():\n"
        "    while not any(int(p.name) >= 2 for p in (folder / 'epochs').glob('*') if p.name.isdigit()):\n"
        "        time.sleep(0.005)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "threading.Thread(target=kill, daemon=True).start()\n"
        f"fine_tuned(training(folder, **{options!r}), PIXELS)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = max(int(path.name) for path in (tmp_path / "killed/epochs").iterdir() if path.name.isdigit())
    assert 2 <= done < 30
    some, decoded = photos()
    task = training(tmp_path / "killed", some, **options)
    decoded.assign(0)
    resumed = fine_tuned(task, PIXELS)
    assert int(decoded.numpy()) == 0  # the features were there
    uninterrupted = fine_tuned(training(tmp_path / "whole", **options), PIXELS)
    np.testing.assert_allclose(predictions(resumed), predictions(uninterrupted), atol=1e-4)


def test_a_folder_is_found_again_by_the_same_training_only_and_gone_when_it_has_come_to_its_end(tmp_path):
    def run(execution: int, *fingerprints: str, fail: bool) -> list[str]:
        with training_folder(f"{tmp_path}/Trainer/model_run/{execution}", *fingerprints) as folder:
            found = sorted(path.name for path in folder.iterdir())
            (folder / "epoch").touch()
            if fail:
                raise KeyboardInterrupt
        return found

    with pytest.raises(KeyboardInterrupt):
        run(1, "data", "code", fail=True)
    assert run(2, "data", "other code", fail=False) == []
    assert run(3, "data", "code", fail=False) == ["epoch"]
    assert run(4, "data", "code", fail=False) == []


def test_ridge_head_finds_classes_and_does_not_take_noise_for_knowledge():
    chance = np.random.default_rng(0)
    labels = np.arange(90) % 3
    noise, all_rows = chance.normal(size=[90, 40]), np.arange(90)
    told = ridge_head(noise + 4 * np.eye(40)[labels], labels, 3, np.ones(90), all_rows)
    assert told.accuracy > 0.9
    assert ridge_head(noise, labels, 3, np.ones(90), all_rows).accuracy < 0.55
    unseen = chance.normal(size=[300, 40]) + 4 * np.eye(40)[np.arange(300) % 3]
    logits = ((unseen - told.mean) / told.deviation) @ told.kernel + told.bias
    assert (logits.argmax(axis=1) == np.arange(300) % 3).mean() > 0.8


def test_a_ridge_head_is_that_of_the_least_cross_entropy_where_each_row_is_left_out():
    chance, labels = np.random.default_rng(1), np.arange(30) % 2
    features = chance.normal(size=[30, 3]) + labels[:, None]
    rows = (features - features.mean(axis=0)) / (features.std(axis=0))
    targets = np.eye(2)[labels]
    found = []
    for penalty in np.logspace(-3, 2, 11) * (np.linalg.svd(rows, compute_uv=False) ** 2).mean():
        left_out = []
        for row in range(30):
            others = np.arange(30) != row
            # The intercept is a column that the penalty leaves alone.
            design = np.column_stack([rows[others], np.ones(29)])
            solved = np.linalg.solve(design.T @ design + penalty * np.diag([1, 1, 1, 0]), design.T @ targets[others])
            left_out.append(np.append(rows[row], 1) @ solved)
        logs = tf.nn.log_softmax(np.geomspace(1, 100, 1000)[:, None, None] * np.array(left_out)).numpy()
        # In one of 31 cases the label is as good as another.
        losses = -(30 / 31 * logs[:, np.arange(30), labels] + 1 / 31 * logs.mean(axis=2)).mean(axis=1)
        found.append((losses.min(), (np.argmax(left_out, axis=1) == labels).tolist()))
    assert ridge_head(features, labels, 2, np.ones(30), np.arange(30)).right.tolist() == min(found)[1]
    assert min(found)[1] not in (found[0][1], found[-1][1])


def test_balanced_class_weights_make_a_rare_class_count(tmp_path):
    # Of the class 0, the first five only; of the class 2, none.
    all_photos, _ = photos()
    chosen = [str(number) for number in range(60) if number % 3 == 1 or (number % 3 == 0 and number < 15)]
    rare = Images(tf.data.Dataset.from_tensor_slices(chosen), all_photos.transform)
    even = training(tmp_path, rare, class_weights="none")
    balanced = training(tmp_path, rare, class_weights="balanced")
    assert np.bincount(balanced.split.labels).tolist() == [5, 20]
    assert even.class_weights.tolist() == [1, 1, 1]
    assert balanced.class_weights[:2].tolist() == pytest.approx([25 / 15, 25 / 60])
    chance = np.random.default_rng(0)
    labels = np.arange(200) % 10 == 0
    features, rows = chance.normal(size=[200, 2]) + labels[:, None], np.arange(200)
    found = [
        ((features - head.mean) / head.deviation @ head.kernel + head.bias).argmax(axis=1).mean()
        for head in (
            ridge_head(features, labels.astype(int), 2, np.ones(200), rows),
            ridge_head(features, labels.astype(int), 2, np.where(labels, 5.0, 0.55), rows),
        )
    ]
    assert found[0] < 0.1 < found[1]


def test_smoothed_labels_punish_certainty(tmp_path):
    def loss(label_smoothing: float, certainty: float) -> float:
        task = training(tmp_path, weights="none", label_smoothing=label_smoothing)
        model = keras.Sequential([keras.Input([3]), keras.layers.Activation("linear")])
        compile_classifier(model, task)
        rest = (1 - certainty) / 2
        return float(model.evaluate(np.array([[certainty, rest, rest]]), np.array([[1.0, 0, 0]]), verbose=0))

    assert loss(0, 0.999) < loss(0, 0.9)
    assert loss(0.3, 0.999) > loss(0.3, 0.8)
    assert loss(0.3, 0.8) == pytest.approx(-(0.8 * np.log(0.8) + 0.2 * np.log(0.1)), abs=1e-5)


@pytest.mark.parametrize("rows", [300, 1500])  # of the latter, a thousand choose
def test_the_blocks_that_tell_the_classes_are_chosen_by_one_thread(rows, monkeypatch):
    chance, labels = np.random.default_rng(0), np.arange(rows) % 3
    features = {name: chance.normal(size=[rows, 20]) for name in "abcde"}
    for number, name in enumerate("bc"):
        features[name] += 3 * (labels == number)[:, None]
    threads = []

    def eigh(products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        threads.extend(each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas")
        return decomposed(products)

    decomposed = np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", eigh)
    with threadpool_limits(2, user_api="blas"):
        chosen = chosen_blocks(features, labels, 3, np.ones(rows), np.arange(rows))
    assert {"b", "c"} <= set(chosen) and "e" not in chosen
    assert set(threads) == {1}


def test_rows_of_copies_do_not_judge_and_follow_the_photos_that_are_chosen():
    values = np.arange(14.0)[:, None]
    found = FrozenFeatures({"b": values}, np.array([*range(10), 1, 4, 5, 8]))
    assert found.judged.tolist() == [0, 2, 3, 6, 7, 9]
    some = found.of_photos(np.array([1, 2, 5, 9]))
    assert some.values["b"].ravel().tolist() == [1, 2, 5, 9, 10, 12]
    assert some.photos.tolist() == [0, 1, 2, 3, 0, 2]
    assert FrozenFeatures({}, np.tile(np.arange(3), 2)).judged.tolist() == [0, 1, 2]


def test_grey_photos_are_told_too_where_colours_tell_the_classes_of_the_others(tmp_path, weights_file):
    def transform(grey: bool, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        numbers = tf.strings.to_number(serialized, tf.int64)
        labels = numbers % CLASSES
        rows = tf.range(32)
        # Stripes that lie, stand and cross, in the colour of their class.
        lying = tf.cast(tf.where(rows % 8 < 4, 0.5, -0.5)[:, None] * tf.ones([32, 32]), tf.float32)
        stripes = tf.gather(tf.stack([lying, tf.transpose(lying), lying + tf.transpose(lying)]), labels)[..., None]
        noise = tf.map_fn(
            lambda n: tf.random.stateless_uniform([32, 32, 3], [1, n], -0.2, 0.2),
            numbers,
            fn_output_signature=tf.float32,
        )
        pixels = 0.6 * tf.one_hot(labels, 3)[:, None, None] + 0.3 * stripes + noise
        pixels = greyed(pixels) if grey else pixels
        return {"image": pixels, "error": tf.fill(tf.shape(numbers), ""), "label": labels}

    records = tf.data.Dataset.from_tensor_slices([str(number) for number in range(60)])
    coloured, grey = (Images(records, partial(transform, grey)) for grey in (False, True))
    options = {"weights": weights_file, "blocks": ["conv_dw_2"]}
    usual = AugmentationOptions().model_dump()
    told, untold = (
        fine_tuned(training(tmp_path / name, coloured, **options, augmentation=changes), PIXELS)
        for name, changes in (("told", usual), ("untold", {"grey": 0}))
    )
    right = [(predictions(told, of).argmax(axis=1) == np.arange(60) % CLASSES).mean() for of in (coloured, grey)]
    assert usual["grey"] > 0 and min(right) > 0.95
    assert (predictions(untold, grey).argmax(axis=1) == np.arange(60) % CLASSES).mean() < 0.8


def test_changed_photos_are_flipped_cropped_and_recoloured_within_their_range():
    pixels = tf.random.stateless_uniform([40, 8, 10, 3], [1, 2], -1, 1)
    seed = tf.constant([3, 4], tf.int64)

    def change(**options) -> np.ndarray:
        changes = AugmentationOptions(**{"grey": 0} | options)
        return augmented(pixels, changes, "minus_one_to_one", seed).numpy()

    flipped = change(flip=True)
    is_flipped = (flipped == pixels.numpy()[:, :, ::-1]).all(axis=(1, 2, 3))
    is_same = (flipped == pixels.numpy()).all(axis=(1, 2, 3))
    assert (is_flipped ^ is_same).all() and 8 < is_flipped.sum() < 32
    cropped = change(crop=0.5)
    assert cropped.shape == pixels.shape and (np.abs(cropped - pixels).max(axis=(1, 2, 3)) > 0.1).all()
    recoloured = change(colour=0.5)
    assert recoloured.min() >= -1 and recoloured.max() <= 1 and (recoloured != pixels.numpy()).mean() > 0.5
    np.testing.assert_array_equal(change(), pixels)
    grey = change(grey=0.5)
    is_grey = (grey == grey[..., :1]).all(axis=(1, 2, 3))
    assert 8 < is_grey.sum() < 32
    np.testing.assert_array_equal(grey[~is_grey], pixels.numpy()[~is_grey])
    np.testing.assert_allclose(grey[is_grey][..., 0], (pixels.numpy() @ [0.299, 0.587, 0.114])[is_grey], atol=1e-6)
    np.testing.assert_array_equal(change(flip=True, crop=0.2, colour=0.2), change(flip=True, crop=0.2, colour=0.2))
    other = augmented(pixels, AugmentationOptions(crop=0.5, grey=0), "minus_one_to_one", tf.constant([3, 5], tf.int64))
    assert np.abs(other - cropped).max() > 0.1


def test_every_backbone_is_one_of_keras_applications():
    missing = [name for name in BACKBONES if not hasattr(keras.applications, name)]
    assert missing == []
    models = {name for name in dir(keras.applications) if name[0].isupper()}
    assert models == set(BACKBONES)


def test_the_blocks_of_inception_are_its_mixed_layers():
    backbone = image_backbone("InceptionV3", "none", ImageOptions(height=75, width=75))
    assert backbone_blocks(backbone) == [f"mixed{number}" for number in range(11)]


def test_a_backbone_that_was_trained_on_other_colours_gets_them_from_raw_pixels(tmp_path):
    bare = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(32, 32, 3))
    bare.save_weights(tmp_path / "resnet.weights.h5")
    options = ImageOptions(height=32, width=32, scaling="raw")
    backbone = image_backbone("ResNet50", str(tmp_path / "resnet.weights.h5"), options)
    pixels = np.random.default_rng(0).integers(0, 256, size=[2, 32, 32, 3]).astype(np.float32)
    expected = bare(keras.applications.resnet50.preprocess_input(pixels.copy()))
    np.testing.assert_allclose(backbone(pixels), expected, rtol=1e-3, atol=1e-4)
    backbone.save(tmp_path / "whole.keras")
    np.testing.assert_allclose(
        image_backbone("ResNet50", str(tmp_path / "whole.keras"), options)(pixels), backbone(pixels)
    )


def test_a_saved_model_of_features_gets_a_head(tmp_path):
    class Features(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 32, 32, 3])])
        def __call__(self, pixels):
            return {"features": tf.reduce_mean(pixels, axis=[1, 2])}

    module = Features()
    tf.saved_model.save(module, str(tmp_path / "hub"), signatures=module.__call__)
    classifier = fine_tuned(training(tmp_path / "t", weights=str(tmp_path / "hub")), PIXELS)
    assert accuracy(classifier) == 1.0


def test_weights_that_cannot_be_had_end_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    with pytest.raises(TrainingError, match=r"ImageNet weights of MobileNet cannot be downloaded.*\.weights\.h5 file"):
        image_backbone("MobileNet", "imagenet", ImageOptions(height=224, width=224))
    with pytest.raises(TrainingError, match=r"no\.weights\.h5: these weights cannot be loaded into a MobileNet"):
        image_backbone("MobileNet", str(tmp_path / "no.weights.h5"), PIXELS)
    with pytest.raises(TrainingError, match="no TF-Hub model can be loaded from there"):
        image_backbone("MobileNet", str(tmp_path), PIXELS)
    with pytest.raises(TrainingError, match="InceptionV3 cannot take photos of 32x32 pixels"):
        image_backbone("InceptionV3", "none", PIXELS)
    two = [keras.Input([32, 32, 3]), keras.Input([32, 32, 3])]
    keras.Model(two, keras.layers.Add()(two)).save(tmp_path / "two.keras")
    with pytest.raises(TrainingError, match=r"two\.keras: the model takes \(32, 32, 3\), preprocessing makes"):
        image_backbone("MobileNet", str(tmp_path / "two.keras"), PIXELS)
    with pytest.raises(TrainingError, match=r"names 'mixed5'.*its blocks are conv_dw_1, conv_dw_2"):
        fine_tuned(training(tmp_path / "t", weights="none", blocks=["mixed5"]), PIXELS)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"backbone": "Inception"}, "expected auto, or one of ConvNeXtBase"),
        ({"epochs": 3}, "epochs is for blocks that are trained"),
        ({"weights": "none", "trained_blocks": 2}, "with weights: none, all layers are trained"),
        ({"batch_norm_momentum": 0.5}, "batch_norm_momentum is for weights: none"),
        ({"blocks": []}, "expected auto or the names of blocks"),
        ({"prefer": "speed"}, "prefer is for backbone: auto"),
        ({"backbone": "auto", "blocks": ["mixed5"]}, "blocks are those of one backbone, and backbone is auto"),
        ({"backbone": "auto", "weights": "none"}, "or a folder of files such as InceptionV3.weights.h5"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options, sentence):
    with pytest.raises(ValidationError, match=sentence):
        FineTuneOptions(mode="fine_tune", **options)


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> Path:
    """A folder of weights that were not trained: of one network that tells colours, and of one that is all zeros."""
    folder = tmp_path_factory.mktemp("several")
    for name in ("MobileNet", "MobileNetV2"):
        keras.utils.set_random_seed(1)
        backbone = image_backbone(name, "none", PIXELS)
        if name == "MobileNetV2":
            backbone.set_weights([np.zeros_like(weight) for weight in backbone.get_weights()])
        backbone.save_weights(folder / f"{name}.weights.h5")
    return folder


def test_the_backbone_that_tells_most_photos_is_kept_is_served_and_is_not_chosen_again_after_a_kill(
    tmp_path, several, monkeypatch
):
    pixels = ImageOptions(height=40, width=32, scaling="raw")
    trainer = Trainer(tmp_path, pixels)
    options = {"backbone": "auto", "weights": str(several)}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("trainers.image.fine_tuning.train_from_features", Mock(side_effect=KeyboardInterrupt))
        trainer.run(1, None, **options)
    (choice,) = (tmp_path / "Trainer/unfinished").rglob("backbone.json")
    chosen = json.loads(choice.read_text())
    export, provenance = trainer.run(2, None, **options)
    assert provenance["backbones"] == chosen
    assert (chosen["kept"], chosen["why"], chosen["left_out"]) == ("MobileNet", "it tells most photos", [])
    assert list(chosen["members"]) == ["MobileNet", "MobileNetV2"]
    assert chosen["members"]["MobileNet"]["accuracy"][0] == 1.0
    assert chosen["members"]["MobileNetV2"]["accuracy"][0] < 0.5

    model = keras.models.load_model(f"{Path(export).parent}/model.keras")
    assert model.get_layer("conv_dw_1") is not None
    colours = np.array([[220, 20, 20], [20, 220, 20], [20, 20, 220]], np.float32)
    answers = model.predict(np.tile(colours[:, None, None], (1, 40, 32, 1)), verbose=0).argmax(axis=1)
    files = [png(colour, 50) for colour in colours]
    grpc = {"image": np.array(files, object)}
    served = answers_over_both(export, {"image": [{"b64": b64encode(file).decode()} for file in files]}, grpc, tmp_path)
    assert served == [["blue", "green", "red"][answer] for answer in answers] == ["red", "green", "blue"]


def test_what_tells_clearly_fewer_photos_sees_no_more_of_them(tmp_path, several, monkeypatch):
    monkeypatch.setattr("trainers.image.backbones._ROUNDS", (30, 45))
    task = training(tmp_path, backbone="auto", weights=str(several))
    classifier = fine_tuned(replace(task, scaling="raw"), ImageOptions(height=32, width=32, scaling="raw"))
    seen = {name: one["photos"] for name, one in classifier.tried["members"].items()}
    assert seen == {"MobileNet": 48, "MobileNetV2": 30}  # 16 of each of three classes


def test_each_of_several_backbones_gets_its_own_pixels(several):
    raw = np.random.default_rng(0).uniform(0, 255, [2, 240, 250, 3]).astype(np.float32)
    own = image_backbone("MobileNet", f"{several}/MobileNet.weights.h5", ImageOptions(height=224, width=224))
    as_own = tf.image.resize(raw, (224, 224), antialias=True) / 127.5 - 1
    for_several = ImageOptions(height=240, width=250, scaling="raw")
    model = image_backbone("MobileNet", f"{several}/MobileNet.weights.h5", for_several, for_several=True)
    np.testing.assert_allclose(model(raw, training=False), own(as_own, training=False), atol=1e-5)


def test_accuracy_takes_the_best_and_speed_the_fastest_that_is_not_worse_by_more_than_chance():
    number = np.arange(100)
    photos = number != 50
    right = {"large": photos, "middle": number > 1, "small": number > 9, "as large": photos}
    milliseconds = {"large": 40.0, "middle": 20.0, "small": 5.0, "as large": 30.0}
    assert kept_backbone(right, milliseconds, "accuracy") == ("as large", "it tells most photos")
    kept, why = kept_backbone(right, milliseconds, "speed")
    assert (kept, why[:8]) == ("middle", "as large")  # two that it loses and one that it gains are chance
    assert kept_backbone({"large": photos, "small": number > 9}, milliseconds, "speed")[0] == "large"


def test_backbones_without_weights_are_left_out_and_named(tmp_path, monkeypatch):
    download = backbones._with_imagenet_weights
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    monkeypatch.setattr("trainers.image.options.IMAGENET_CANDIDATES", ("MobileNetV2", "MobileNet"))
    raw = ImageOptions(height=32, width=32, scaling="raw")
    task = replace(training(tmp_path / "t", backbone="auto"), scaling="raw")
    with pytest.raises(TrainingError, match=r"MobileNetV2, MobileNet cannot be downloaded \(URL.*to a folder of files"):
        fine_tuned(task, raw)
    drawn = {"MobileNet": backbones._construct}  # as if it could be downloaded
    monkeypatch.setattr(backbones, "_with_imagenet_weights", lambda name, *to: drawn.get(name, download)(name, *to))
    tried = fine_tuned(task, raw).tried
    assert (tried["kept"], tried["left_out"], list(tried["members"])) == ("MobileNet", ["MobileNetV2"], ["MobileNet"])
    # Photos that are too small for one of them are no lack of weights.
    monkeypatch.setattr("trainers.image.options.IMAGENET_CANDIDATES", ("MobileNet", "InceptionV3"))
    with pytest.raises(TrainingError, match="InceptionV3 cannot take photos of 32x32 pixels"):
        fine_tuned(replace(task, folder=tmp_path), raw)
