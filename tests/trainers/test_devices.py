"""Training on several devices and workers ends as on one; mixed precision leaves float32 weights; who uses which.

Tiny models of each task are trained in processes of their own, on one logical device and on two of them, or on those
that TF_CONFIG names.
"""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from serving.reference_predictions import example_id
from tests.pipeline.conftest import LOADED
from trainers import devices as devices_module
from trainers.devices import Devices, Workers, training_devices, worker_places
from trainers.errors import TrainingError
from trainers.image.batches import ImageTraining
from trainers.image.fine_tuning import fine_tuned
from trainers.image.options import FineTuneOptions
from trainers.image.splits import Images, read_image_split
from trainers.options import DeviceChoice
from trainers.splits import TransformedSplit
from trainers.tabular.models import build_model
from trainers.tabular.networks import train_networks
from trainers.tabular.options import TabularTrainerOptions
from trainers.tabular.train import fit
from trainers.text.models import ngram_classifier
from trainers.text.options import NgramOptions, TransformerOptions
from trainers.text.train import fit_text
from transform.options import ImageOptions
from transform.tabular import NUMBERS

STEPS = 20
WEIGHTS = "mobilenet.weights.h5"
Result = dict[str, list[float]]
_PIXELS = ImageOptions(height=32, width=32)


def table(rows: int) -> TransformedSplit:
    """Two numbers whose product has the sign that the label is, and weights."""
    chance = np.random.default_rng(0)
    numbers = chance.normal(size=[rows, 2]).astype(np.float32)
    labels = (numbers.prod(axis=1) > 0).astype(np.int64)
    return TransformedSplit(
        [example_id(str(row).encode()) for row in range(rows)],
        {NUMBERS: numbers}, labels, left_out=0, fingerprint="", weights=chance.uniform(0.2, 1.8, rows),
    )  # fmt: skip


def networks(devices: DeviceChoice, folder: Path) -> Result:
    """Three networks of a blend in batches of 32, 32 and 29, the last of which cannot be shared out in equal parts."""
    split = table(93)
    held_out = np.arange(93)[:, None] % 3 == np.arange(3)
    options = TabularTrainerOptions(epochs=7, dropout=0, devices=devices)
    trained = train_networks(split, held_out, 0, 2, options, {}, split.weights)
    return {
        "losses": [*trained.losses],
        "held_out": [*trained.held_out_losses],
        "answers": _flat(trained.probabilities),
    }


ONE: dict[str, Any] = {"epochs": STEPS}
SEVERAL: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 9,
    "early_stopping_patience": 3,
    "class_weights": "balanced",
}


def network(devices: DeviceChoice, folder: Path, several: bool = True) -> Result:
    """A step an epoch, of 37 rows; and several of 9, the last of 7, with early stopping."""
    found: Result = {}
    for name, settings in {"one": ONE, **({"several": SEVERAL} if several else {})}.items():
        options = TabularTrainerOptions(model="network", dropout=0, devices=devices, **settings)
        keras.utils.set_random_seed(0)
        split = table(37)
        model = build_model(split.features, 0, 2, options, {})
        fit(model, split, options)
        if name == "one":
            found["losses"] = model.history.history["loss"]
        found[name] = _flat(model.predict(split.features, verbose=0))
    return found


def text(devices: DeviceChoice, folder: Path) -> Result:
    """A linear model and a network over terms, of 37 texts, with penalties."""
    chance = np.random.default_rng(0)
    terms = chance.integers(1, 21, size=[37, 5])
    features = {"words": tf.RaggedTensor.from_tensor(tf.constant(terms, tf.int32))}
    features["word_weights"] = tf.cast(features["words"] > 0, tf.float32) * 0.4
    split = TransformedSplit([str(row) for row in range(37)], features, (terms[:, 0] > 10).astype(np.int64), 0, "")
    options = NgramOptions(
        epochs=STEPS, learning_rate=0.01, dropout=0, term_dropout=0, class_weights="balanced", devices=devices
    )
    keras.utils.set_random_seed(0)
    classifier = ngram_classifier(split, {"words": 20}, 2, options)
    fit_text(classifier, split, options)
    return {"losses": classifier.model.history.history["loss"]}


def photos(devices: DeviceChoice, folder: Path, count: int = 21, **settings: Any) -> Result:
    """The last block of a backbone, or all of it, on photos of one colour each."""

    def transform(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        numbers = tf.strings.to_number(serialized, tf.int64)
        noise = tf.map_fn(
            lambda n: tf.random.stateless_uniform([32, 32, 3], [1, n], -0.5, 0.5),
            numbers,
            fn_output_signature=tf.float32,
        )
        pixels = 0.4 * tf.one_hot(numbers % 3, 3)[:, None, None, :] + noise
        return {"image": pixels, "error": tf.strings.substr(serialized, 0, 0), "label": numbers % 3}

    images = Images(tf.data.Dataset.from_tensor_slices([str(number) for number in range(count)]), transform)
    options = FineTuneOptions(
        mode="fine_tune", backbone="MobileNet", blocks=["conv_dw_3"], epochs=STEPS, learning_rate=0.001,
        augmentation={"grey": 0}, class_weights="balanced", devices=devices, **settings,
    )  # fmt: skip
    own = folder / f"photos-{devices}-{count}"
    own.mkdir(parents=True)
    training = ImageTraining(images, read_image_split(images), 3, "minus_one_to_one", options, own)
    trained = fine_tuned(training, _PIXELS)
    return {"losses": trained.model.history.history["loss"]}


def _flat(values: np.ndarray) -> list[float]:
    return np.asarray(values, np.float64).ravel().tolist()


def as_worker(folder: Path) -> dict[str, Any]:
    """What one of several workers trains, and how it ends."""
    found = training_devices(TabularTrainerOptions(model="network"))
    given = SimpleNamespace(serving_model_dir=str(folder / "export"), model_run_dir=str(folder / "a/b/model_run/1"))
    results: dict[str, Any] = {"count": found.count, "number": found.workers.number}
    with worker_places(given, found) as own:
        place = Path(own.model_run_dir)
        results["network"] = network("auto", place, several=False)
        results["photos"] = photos("auto", place, weights=str(folder / WEIGHTS), trained_blocks=1)
        Path(own.serving_model_dir).mkdir(parents=True)
        (Path(own.serving_model_dir) / "by").write_text(str(found.workers.number))
    # Whoever comes out sees what the chief has exported.
    return results | {"export": (folder / "export/by").read_text()}


def on_one_device_and_on_two(folder: Path) -> dict[str, Any]:
    """What is trained on each number of devices."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    keras.utils.set_random_seed(1)
    weights = str(folder / WEIGHTS)
    keras.applications.MobileNet(input_shape=(32, 32, 3), include_top=False, weights=None).save_weights(weights)
    return {
        str(count): {task.__name__: task(count, folder) for task in (networks, network, text)}
        | {
            "photos": photos(count, folder, weights=weights, trained_blocks=1),
            # Rows that fill a batch up would count in its means.
            "photos from scratch": photos(count, folder, 20, weights="none"),
        }
        for count in (1, 2)
    }


def started(training: Callable[[Path], dict[str, Any]], folder: Path, **environment: str) -> tuple[BaseProcess, Path]:
    """A process that trains, and the file that takes what comes of it."""
    file = folder / f"{uuid.uuid4()}.json"
    process = LOADED.Process(target=_train, args=(training, folder, environment, file))
    process.start()
    return process, file


def _train(training: Callable[[Path], dict[str, Any]], folder: Path, environment: dict[str, str], file: Path) -> None:
    os.environ.update({"CUDA_VISIBLE_DEVICES": "-1", **environment})
    file.write_text(json.dumps(training(folder)))


def ended(process: BaseProcess, file: Path) -> dict[str, Any]:
    process.join(500)
    assert process.exitcode == 0
    return dict(json.loads(file.read_text()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("devices")


@pytest.fixture(scope="module")
def results(folder) -> dict[str, dict[str, Result]]:
    """What came of each number of devices."""
    return ended(*started(on_one_device_and_on_two, folder))


@pytest.mark.parametrize("task", ["networks", "network", "text", "photos", "photos from scratch"])
def test_two_devices_train_as_one_does(results, task):
    one, two = results["1"][task], results["2"][task]
    assert len(one["losses"]) == (7 if task == "networks" else STEPS)  # of 3 steps each
    assert one["losses"][-1] < one["losses"][0]
    assert one.keys() == two.keys()
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, rtol=1e-4, err_msg=name)
    assert two["losses"] != one["losses"]  # rounded in another order: two devices there were


def test_two_workers_train_as_one_process_does_and_the_chief_alone_exports(results, folder):
    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    # As Vertex AI and Kubeflow's training operator have it.
    cluster = {"chief": addresses[:1], "worker": addresses[1:]}
    tasks = [{"type": "chief", "index": 0}, {"type": "worker", "index": 0}]
    configs = [json.dumps({"cluster": cluster, "task": task, "environment": "cloud"}) for task in tasks]
    workers = [started(as_worker, folder, TF_CONFIG=config) for config in configs]
    try:
        found = [ended(*worker) for worker in workers]
    finally:
        for process, _ in workers:
            process.kill()
    assert [(each["count"], each["number"], each["export"]) for each in found] == [(2, 0, "0"), (2, 1, "0")]
    for each in found:
        for task in ("network", "photos"):
            np.testing.assert_allclose(each[task]["losses"], results["1"][task]["losses"], rtol=1e-4)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_computes_in_it_and_leaves_a_float32_model(policy, monkeypatch):
    split = table(200)
    losses = []
    for chosen in ("", policy):
        monkeypatch.setattr("trainers.tabular.train.training_devices", lambda _, chosen=chosen: Devices(policy=chosen))
        keras.utils.set_random_seed(0)
        options = TabularTrainerOptions(model="network", dropout=0, epochs=4)
        model = build_model(split.features, 0, 2, options, {})
        fit(model, split, options)
        losses.append(model.history.history["loss"])
        assert {weight.dtype for weight in model.weights} == {"float32"}
        assert {layer.compute_dtype for layer in model.layers} == {"float32"}
        assert model.predict(split.features, verbose=0).dtype == np.float32
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.02)
    assert losses[0] != losses[1]


def test_by_default_a_model_is_trained_itself_with_nothing_around_it():
    devices = training_devices(TabularTrainerOptions())
    model, dataset = keras.Sequential([keras.Input([2]), keras.layers.Dense(1)]), tf.data.Dataset.range(3)
    assert (devices.strategy, devices.policy, devices.count) == (None, "", 1)
    assert devices.learner(model) is model
    assert devices.batches(dataset) is dataset
    assert not isinstance(devices.optimizer(keras.optimizers.Adam), keras.optimizers.LossScaleOptimizer)


def test_each_device_drops_out_numbers_of_its_own():
    state = keras.random.SeedGenerator(7).state
    replicas = SimpleNamespace(values=[tf.Variable(np.zeros(2, np.uint32)) for _ in range(3)])
    variable = SimpleNamespace(assign=state.assign, dtype="uint32", path=state.path, value=replicas)
    devices_module.assign_to_devices(variable, np.array([7, 4]))
    assert np.asarray(state).tolist() == [7, 4]
    assert [each.numpy().tolist() for each in replicas.values] == [[7, 4], [8, 4], [9, 4]]


@pytest.mark.parametrize(
    ("content", "workers"),
    [
        ({}, Workers(1, 0)),
        ({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}, Workers(1, 0)),
        ({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}, Workers(2, 1)),
        ({"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "chief", "index": 0}}, Workers(2, 0)),
        ({"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "worker", "index": 0}}, Workers(2, 1)),
    ],
)
def test_workers_are_numbered_from_the_chief_on(content, workers):
    assert Workers.of(json.dumps(content)) == workers


@pytest.mark.parametrize(
    ("tf_config", "sentence"),
    [
        ("{", "expected JSON with cluster and task"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}}', "expected JSON with cluster and task"),
        (
            '{"cluster": {"worker": ["a:1", "b:1"], "ps": ["c:1"]}, "task": {"type": "ps", "index": 0}}',
            "the task is ps 0",
        ),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}', "the task is worker 2"),
    ],
)
def test_a_tf_config_that_is_none_or_not_for_training_ends_in_a_sentence(tf_config, sentence):
    with pytest.raises(TrainingError, match=sentence):
        Workers.of(tf_config)


@pytest.mark.parametrize(
    ("precision", "capabilities", "policy"),
    [
        (False, [(8, 0)], ""),
        (True, [(7, 0), (8, 6)], "mixed_float16"),
        ("auto", [(7, 5)], "mixed_float16"),
        ("auto", [(6, 1), (7, 5)], ""),
        ("auto", [], ""),
        ("bfloat16", [], "mixed_bfloat16"),
    ],
)
def test_mixed_precision_is_what_all_gpus_have(monkeypatch, precision, capabilities, policy):
    monkeypatch.setattr(
        tf.config.experimental, "get_device_details", lambda gpu: {"compute_capability": capabilities[gpu]}
    )
    assert devices_module._policy(precision, list(range(len(capabilities)))) == policy


def test_what_is_not_there_is_refused_in_a_sentence():
    with pytest.raises(TrainingError, match=r"trainer\.devices is 64, and there are \d+ GPUs here"):
        training_devices(TabularTrainerOptions(devices=64))
    with pytest.raises(TrainingError, match=r"mixed_precision is true, .* training has no GPU"):
        devices_module._policy(True, [])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: TabularTrainerOptions(model="trees", mixed_precision="auto"), "trees grows on the processor"),
        (lambda: TabularTrainerOptions(model="trees", devices=2), "trees grows on the processor"),
        (lambda: FineTuneOptions(mode="fine_tune", mixed_precision="bfloat16"), "mixed_precision is for blocks"),
        (lambda: FineTuneOptions(mode="fine_tune", devices=2), "devices is for blocks that are trained"),
        (
            lambda: TransformerOptions(model="transformer", encoder="e", precision="bfloat16", mixed_precision="auto"),
            "computes so in training too",
        ),
        (lambda: NgramOptions(devices=0), "greater than or equal to 1"),
        (lambda: NgramOptions(devices=True), "devices"),
    ],
)
def test_options_that_would_do_nothing_are_refused(make, sentence):
    with pytest.raises(ValidationError, match=sentence):
        make()
