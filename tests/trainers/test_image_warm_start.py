"""A training of photos that begins with the weights of the served model."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from pydantic import ValidationError

from components.errors import BrokenInput
from pipeline.config import load_config
from tests.trainers.test_image_trainer import PIXELS, PROJECT, Trainer, accuracy, predictions, training
from trainers.fitting import _Memory
from trainers.image.backbones import image_backbone
from trainers.image.batches import frozen_features
from trainers.image.fine_tuning import ImageWarmStart, fine_tuned
from trainers.image.models import ImageClassifier
from trainers.image.options import FineTuneOptions
from trainers.warm_start import MeaningOfWeights, copy_weights, write_warm_start

LABELS = ["red", "green", "blue"]
NOTHING_SERVED = "cold: the served model, if there is one, was not trained with warm_start"
NOT_AT_ALL = {"epochs": 1, "learning_rate": 1e-12}
SCRATCH = {"weights": "none", "blocks": ["conv_dw_3"], "epochs": 4, "batch_size": 8, "learning_rate": 0.01}
BLOCKS = ["conv_dw_2", "conv_dw_4"]
TRAINED = {"blocks": BLOCKS, "trained_blocks": 1, "epochs": 4, "learning_rate": 0.01}


def start(served: str = "", **changed) -> ImageWarmStart:
    fields = {"columns": {"image": "string"}, "preprocessing": PIXELS.model_dump(mode="json"), "labels": LABELS}
    return ImageWarmStart(MeaningOfWeights(**fields | changed, vocabularies={}), served)


def trained(folder: Path, begins_with: ImageWarmStart | None, **options) -> ImageClassifier:
    return fine_tuned(training(folder, **options), PIXELS, begins_with)


def left(folder: Path, classifier: ImageClassifier) -> str:
    """The directory of what is served."""
    write_warm_start(str(folder), classifier.model, classifier.meaning)
    return str(folder)


def weights(of: ImageClassifier) -> list[np.ndarray]:
    return of.model.get_weights()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> str:
    """Weights of a small backbone that was not trained."""
    keras.utils.set_random_seed(1)
    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    image_backbone("MobileNet", "none", PIXELS).save_weights(path)
    return str(path)


@pytest.fixture(scope="module")
def served(tmp_path_factory, drawn) -> tuple[ImageClassifier, str]:
    """A model with a trained block, and its directory."""
    folder = tmp_path_factory.mktemp("served")
    classifier = trained(folder / "training", start(), weights=drawn, **TRAINED)
    assert classifier.start == NOTHING_SERVED
    return classifier, left(folder / "1", classifier)


def test_from_scratch_a_training_that_changes_nothing_answers_as_the_served_model(tmp_path):
    first = trained(tmp_path / "a", start(), **SCRATCH, batch_norm_momentum=0.5)
    path = left(tmp_path / "1", first)
    again = trained(tmp_path / "b", start(path), **SCRATCH | NOT_AT_ALL, batch_norm_momentum=0.9999999)
    assert (first.start, again.start) == (NOTHING_SERVED, "warm: from the served model")
    assert accuracy(first) > 0.9
    np.testing.assert_allclose(predictions(again), predictions(first), atol=1e-4)
    # The running means of normalization among them.
    for now, then in zip(weights(again), weights(first), strict=True):
        np.testing.assert_allclose(now, then, atol=1e-5)
    assert not keras.models.load_model(f"{path}/assets.extra/warm_start.keras").compiled


def test_blocks_and_head_are_trained_further_and_chosen_blocks_stay(tmp_path, served, drawn):
    classifier, path = served
    again = trained(tmp_path, start(path), weights=drawn, trained_blocks=1, **NOT_AT_ALL)
    assert again.start == "warm: from the served model"
    assert again.meaning == classifier.meaning
    assert again.meaning.backbone["blocks"] == [1, 3]
    np.testing.assert_allclose(predictions(again), predictions(classifier), atol=1e-5)
    for now, then in zip(weights(again), weights(classifier), strict=True):
        np.testing.assert_allclose(now, then, atol=1e-9)


def test_frozen_features_are_those_of_the_served_backbone_where_only_a_head_is_solved(tmp_path, served, drawn):
    classifier, path = served
    again = trained(tmp_path, start(path), weights=drawn, blocks=BLOCKS)
    assert again.start == "warm: from the served model; its head is solved anew"
    *backbone, head = zip(again.model.layers, classifier.model.layers, strict=True)
    for now, then in backbone:
        for weight, learned in zip(now.get_weights(), then.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, learned)
    assert not np.allclose(head[0].get_weights()[-2], head[1].get_weights()[-2], atol=1e-3)
    assert accuracy(again) == 1.0
    seen = keras.Model(classifier.model.input, classifier.model.get_layer("conv_dw_4").output)
    first = next(iter(training(tmp_path).photos.batches(60)))["image"]
    features = np.load(tmp_path / "pooled/conv_dw_4.npy")[: len(first)]
    np.testing.assert_allclose(features, seen.predict(first, verbose=0).mean(axis=(1, 2)), atol=1e-5)


def test_a_backbone_that_was_never_trained_brings_nothing(tmp_path, drawn):
    options = {"weights": drawn, "blocks": ["conv_dw_4"]}
    first = trained(tmp_path / "a", start(), **options)
    again = trained(tmp_path / "b", start(left(tmp_path / "1", first)), **options)
    assert again.start == "cold: no block of the served model was trained"
    np.testing.assert_array_equal(predictions(again), predictions(first))


def test_with_other_labels_a_training_begins_cold_and_ends_as_any(tmp_path, served, drawn):
    classifier, path = served
    cold = trained(tmp_path, start(path, labels=["red", "green", "yellow"]), weights=drawn, **TRAINED)
    assert cold.start == "cold: other labels than the served model's"
    np.testing.assert_allclose(predictions(cold), predictions(classifier), atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "weights", "blocks"),
    [
        ({"backbone": "Xception"}, 1.0, [0]),
        ({"weights": "none"}, 1.0, [0]),
        ({}, 2.0, [0]),  # another file
        ({}, 1.0, [1]),
    ],
)
def test_weights_of_another_backbone_are_not_taken_over(tmp_path, changed, weights, blocks):
    def model(scale: float) -> keras.Model:
        return keras.Sequential([keras.Input([3]), keras.layers.Dense(2, kernel_initializer=lambda *_, **__: scale)])

    def begins(value: float, served: str = "", **options) -> ImageWarmStart:
        return start(served).of_backbone(model(value), FineTuneOptions(mode="fine_tune", **options))

    write_warm_start(str(tmp_path), model(1.0), begins(1.0).meaning_with([0]))
    begun = begins(weights, str(tmp_path), **changed)
    assert begun.begin(model(1.0), blocks) == "cold: other backbone than the served model's"
    assert begun.served_blocks() == ((0,) if blocks == [1] else ())


def test_a_killed_training_goes_on_and_ends_where_an_uninterrupted_one_does(tmp_path, served, drawn, monkeypatch):
    options = {"weights": drawn} | TRAINED | {"epochs": 3, "learning_rate": 0.001}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_Memory, "on_epoch_end", killed_behind(1))
        trained(tmp_path / "killed", start(served[1]), **options)
    resumed = trained(tmp_path / "killed", start(served[1]), **options)
    assert resumed.model.history.epoch == [1, 2]
    whole = trained(tmp_path / "whole", start(served[1]), **options)
    np.testing.assert_allclose(predictions(resumed), predictions(whole), atol=1e-5)
    assert np.abs(predictions(resumed) - predictions(served[0])).max() > 1e-4


def killed_behind(epochs: int):
    written = _Memory.on_epoch_end

    def on_epoch_end(self: _Memory, epoch: int, logs: dict[str, float] | None = None) -> None:
        written(self, epoch, logs)
        if epoch + 1 == epochs:
            raise KeyboardInterrupt

    return on_epoch_end


def test_normalization_computes_with_the_weights_it_was_given():
    def model() -> keras.Model:
        return keras.Sequential([keras.Input([2]), keras.layers.Normalization()])

    source, target, outer = model(), model(), keras.Sequential([keras.Input([2]), model()])
    source.layers[0].adapt(np.array([[1.0, 10.0], [3.0, 30.0]]))
    copy_weights(source, target)
    copy_weights(source, outer)
    values = np.array([[1.0, 30.0]], np.float32)
    np.testing.assert_allclose(target(values), [[-1, 1]], atol=1e-6)
    np.testing.assert_allclose(outer(values), [[-1, 1]], atol=1e-6)


def test_an_export_carries_what_the_next_training_begins_with_and_another_start_is_another_training(
    tmp_path, monkeypatch
):
    trainer = Trainer(tmp_path)
    options = {"weights": "none", "blocks": ["conv_dw_1"], "epochs": 2, "batch_size": 8, "warm_start": True}
    first, said = trainer.run(1, None, **options, precision="bfloat16")
    assert (said["warm_start"], said["precision"]) == (NOTHING_SERVED, "bfloat16")
    carried = keras.models.load_model(f"{first}/assets.extra/warm_start.keras")
    model = keras.models.load_model(f"{Path(first).parent}/model.keras")
    assert {weight.dtype for weight in carried.weights} == {"float32"}
    for weight, left_beside in zip(carried.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, left_beside)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_Memory, "on_epoch_end", killed_behind(1))
        trainer.run(2, None, **options)
    _, said = trainer.run(3, first, **options)
    assert said["warm_start"] == "warm: from the served model"
    assert trainer.unfinished() == 1  # that of the second execution


def test_a_wrapped_classifier_has_no_warm_start():
    with pytest.raises(BrokenInput, match=r"unknown key 'trainer\.warm_start'; known here: mode, classifier"):
        load_config(f"{PROJECT}/configs/imagenet.yaml", ["trainer.warm_start=true"])


def test_a_saved_models_weights_cannot_be_taken_over():
    with pytest.raises(ValidationError, match="warm_start is for backbones of Keras"):
        FineTuneOptions(mode="fine_tune", warm_start=True, weights="/a/saved_model")


def test_a_grey_copy_of_some_photos_is_among_the_frozen_features(tmp_path):
    pixels = keras.Input([32, 32, 3])
    mean = keras.Model(pixels, {"mean": keras.ops.mean(pixels, axis=(1, 2))})
    task = training(tmp_path, augmentation={"grey": 0.2})
    found = frozen_features(mean, task, "some")
    assert len(found.photos) == 60 + 12
    colour, grey = found.values["mean"][:60], found.values["mean"][60:]
    luma = colour @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(grey, np.tile(luma[found.photos[60:], None], [1, 3]), atol=1e-5)
    assert len(frozen_features(mean, training(tmp_path, augmentation={"grey": 0}), "none").photos) == 60
    both = training(tmp_path, augmentation={"flip": True, "grey": 1, "copies": 2})
    changed = frozen_features(mean, both, "copies").values["mean"]
    assert changed.shape == (180, 3)
    np.testing.assert_allclose(changed[60:], np.tile(luma[:, None], [2, 3]), atol=1e-5)
