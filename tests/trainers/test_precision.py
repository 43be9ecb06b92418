"""Networks in bfloat16 and int8: which operations are, how far the answers move, and that a session runs them."""

from __future__ import annotations

import re
from base64 import b64encode
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.serving_check.check import remark
from serving import reference_predictions
from serving.session_model import SessionModel
from serving.signatures.common import frozen_function
from tests.pipeline.conftest import answers_over_both
from tests.trainers.test_image_trainer import Trainer
from trainers.errors import TrainingError
from trainers.image import train
from trainers.image.models import ImageClassifier, frozen_classifier
from trainers.image.precision import bfloat16_function, int8_function

SIZE = 24
SPEC = tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32)
PIXELS = tf.constant(np.random.default_rng(0).uniform(-1, 1, [4, SIZE, SIZE, 3]), tf.float32)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Two convolutions with batch normalization, branches that are joined, and a squeeze by a Dense layer."""
    keras.utils.set_random_seed(3)
    pixels = keras.Input([SIZE, SIZE, 3])
    features = keras.layers.Conv2D(16, 3, use_bias=False, name="first")(pixels)
    features = keras.layers.ReLU()(keras.layers.BatchNormalization(scale=False)(features))
    squeezed = keras.layers.Dense(16, activation="sigmoid")(
        keras.layers.GlobalAveragePooling2D(keepdims=True)(features)
    )
    features = keras.layers.multiply([features, squeezed])
    left = keras.layers.DepthwiseConv2D(3, padding="same", activation="relu")(features)
    right = keras.layers.AveragePooling2D(3, strides=1, padding="same")(features)
    features = keras.layers.Conv2D(32, 3, use_bias=False)(keras.layers.concatenate([left, right]))
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(keras.layers.BatchNormalization()(features)))
    made = keras.Model(pixels, keras.layers.Dense(7, activation="softmax")(features * 10.0))
    source = np.random.default_rng(4)
    for layer in made.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([source.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return made


@pytest.fixture(scope="module")
def in_bfloat16(model):
    return bfloat16_function(lambda pixels: model(pixels, training=False), SPEC)


@pytest.fixture(scope="module")
def graph(in_bfloat16) -> tf.Graph:
    """Its operations; constants that lie beside the function are placeholders."""
    return frozen_function(in_bfloat16, SPEC).graph


def dtypes(graph: tf.Graph) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for operation in graph.get_operations():
        if operation.outputs and operation.outputs[0].dtype.is_floating:
            found.setdefault(operation.type, []).append(operation.outputs[0].dtype.name)
    return found


def test_convolutions_and_what_lies_between_them_compute_in_bfloat16(graph):
    found = dtypes(graph)
    for kind in ("Conv2D", "DepthwiseConv2dNative", "Relu", "ConcatV2", "AvgPool", "Sigmoid"):
        assert set(found[kind]) == {"bfloat16"}, kind
    assert set(found["Softmax"]) == {"float32"}
    # The Dense layer on the way to a convolution, and the one that makes the probabilities; likewise the means.
    assert sorted(found["MatMul"]) == ["bfloat16", "float32"]
    assert sorted(found["Mean"]) == ["bfloat16", "float32"]


def test_batch_normalization_is_part_of_the_convolutions(graph):
    found = dtypes(graph)
    assert not {"FusedBatchNormV3", "Rsqrt", "Sub"} & set(found)
    # What is left are the model's own products.
    assert sorted(found["Mul"]) == ["bfloat16", "float32"]


def test_weights_are_constants_of_half_the_size(graph):
    _pixels, *constants = graph.inputs
    constants += [operation.outputs[0] for operation in graph.get_operations() if operation.type == "Const"]
    sizes = {
        name: sum(constant.shape.num_elements() for constant in constants if constant.dtype == dtype)
        for name, dtype in (("float32", tf.float32), ("bfloat16", tf.bfloat16))
    }
    assert not graph.variables
    assert sizes["bfloat16"] > 9000 > 1000 > sizes["float32"]


def test_the_answers_move_by_what_bfloat16_rounds_and_no_more(model, in_bfloat16):
    expected = model.predict(PIXELS, verbose=0)
    moved = np.abs(in_bfloat16(PIXELS).numpy() - expected)
    assert 1e-6 < moved.max() < 0.01
    assert expected.max() > 0.3


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_session_runs_it_and_its_weights_are_in_the_file_once(precision, model, inception, tmp_path):
    model = inception if precision == "int8" else model
    classifier = ImageClassifier(lambda pixels: model(pixels, training=False), model)
    frozen = frozen_classifier(classifier, SIZE, SIZE, precision, [PIXELS])
    module = tf.Module()
    signatures = {
        name: tf.function(lambda image: {"probabilities": frozen.predict({"image": image})}).get_concrete_function(SPEC)
        for name in ("one", "two")
    }
    tf.saved_model.save(module, str(tmp_path), signatures)
    session = SessionModel(str(tmp_path))
    one, two = (session.run(name, {"image": PIXELS.numpy()})["probabilities"] for name in ("one", "two"))
    none = session.run("one", {"image": PIXELS.numpy()[:0]})["probabilities"]
    session.close()
    assert none.shape == (0, one.shape[1])
    np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(one, frozen.predict({"image": PIXELS}).numpy(), atol=1e-6)
    content = (tmp_path / "saved_model.pb").read_bytes()
    kernel = tf.cast(model.layers[-1].kernel, tf.float32).numpy().tobytes()
    assert content.count(kernel) == 1


@pytest.fixture(scope="module")
def inception() -> keras.Model:
    """Convolutions with ReLUs, of which some are joined and pooled, as InceptionV3 has them."""
    keras.utils.set_random_seed(5)

    def layer(features: keras.KerasTensor, filters: int, size: int, **options: object) -> keras.KerasTensor:
        features = keras.layers.Conv2D(filters, size, use_bias=False, **options)(features)
        return keras.layers.ReLU()(keras.layers.BatchNormalization(scale=False)(features))

    pixels = keras.Input([SIZE, SIZE, 3])
    features = layer(layer(pixels, 16, 3, strides=2), 32, 3, padding="same")
    features = keras.layers.MaxPooling2D(3, strides=2)(features)
    left = layer(features, 16, 1)
    right = layer(keras.layers.AveragePooling2D(3, strides=1, padding="same")(features), 24, 3, padding="same")
    features = keras.layers.concatenate([left, right, keras.layers.MaxPooling2D(3, 1, padding="same")(features)])
    features = keras.layers.GlobalAveragePooling2D()(layer(features, 48, 3))
    made = keras.Model(pixels, keras.layers.Dense(7, activation="softmax")(features * 4.0))
    source = np.random.default_rng(6)
    for one in made.layers:
        if isinstance(one, keras.layers.BatchNormalization):
            shift, mean, variance = one.get_weights()
            one.set_weights([source.uniform(-0.5, 1.0, shift.shape), source.uniform(-0.5, 1.0, mean.shape), variance])
    return made


def int8_of(model: keras.Model):
    photos = (batch for part in (PIXELS[:3], PIXELS[:0], PIXELS[3:]) for batch in tf.data.Dataset.from_tensors(part))
    return int8_function(lambda pixels: model(pixels, training=False), SPEC, photos)


def test_convolutions_behind_a_relu_compute_in_int8_and_the_answers_move_by_what_that_rounds(inception):
    in_int8 = int8_of(inception)
    operations = [operation.type for operation in frozen_function(in_int8, SPEC).graph.get_operations()]
    # The first takes pixels, which are below 0 too. What is averaged is float32 on the way.
    assert (operations.count("_FusedQuantizedConv2D"), operations.count("Conv2D")) == (4, 1)
    assert (operations.count("QuantizeV2"), operations.count("Dequantize")) == (2, 2)
    expected = inception.predict(PIXELS, verbose=0)
    moved = np.abs(in_int8(PIXELS).numpy() - expected)
    assert 1e-6 < moved.max() < 0.02
    assert expected.max() > 0.3


@pytest.mark.parametrize("most", [None, 0.75], ids=["all numbers", "what is larger becomes the greatest"])
def test_a_layer_in_int8_is_sums_of_whole_numbers(most):
    """By numpy: inputs from 0 to 255 and weights from -63 to 63, with a factor of the layer and of each channel."""
    source = np.random.default_rng(7)
    kernel, bias = source.normal(0, 0.3, [3, 3, 8, 6]).astype(np.float32), source.normal(0, 0.3, 6).astype(np.float32)

    def function(pixels: tf.Tensor) -> tf.Tensor:
        given = tf.nn.relu(tf.tile(pixels, [1, 1, 1, 3])[..., :8])
        return tf.identity(tf.nn.relu(tf.nn.conv2d(given, kernel, 2, "VALID") + bias))

    expected_given = np.maximum(np.tile(PIXELS.numpy(), [1, 1, 1, 3])[..., :8], 0)
    shown = tf.minimum(PIXELS, most) if most else PIXELS
    of_input = float(np.maximum(shown, 0).max()) / 255
    of_output = float(function(shown).numpy().max()) / 255
    of_weights = np.abs(kernel).max(axis=(0, 1, 2)) / 63
    whole = np.minimum(np.round(expected_given / of_input), 255)
    weights = np.round(kernel / of_weights)
    sums = tf.nn.conv2d(whole, weights, 2, "VALID").numpy()
    # What rounding the weights adds in the mean.
    shown_given = np.maximum(np.tile(shown, [1, 1, 1, 3])[..., :8], 0)
    added = np.einsum("hwio,i->o", weights * of_weights - kernel, shown_given.mean(axis=(0, 1, 2)))
    expected = np.clip(np.round((sums * of_input * of_weights + bias - added) / of_output), 0, 255)
    found = int8_function(function, SPEC, [shown])(PIXELS).numpy() / of_output
    np.testing.assert_allclose(found, np.round(found), atol=1e-3)
    assert np.abs(np.round(found) - expected).max() <= 1
    assert (np.round(found) == expected).mean() > 0.99
    assert expected.max() == 255


def test_what_is_no_bias_and_groups_of_channels_stay_in_float32():
    source = np.random.default_rng(8)
    kernels = [source.normal(0, 0.2, shape).astype(np.float32) for shape in ([3, 3, 3, 8], [3, 3, 4, 8], [3, 3, 8, 8])]

    def function(pixels: tf.Tensor) -> tf.Tensor:
        first, groups, whole = kernels
        features = tf.nn.relu(tf.nn.conv2d(pixels, first, 1, "SAME"))
        features = tf.nn.relu(tf.nn.conv2d(features, groups, 1, "SAME") + 0.25)
        features = tf.nn.relu(tf.nn.conv2d(features, groups, 1, "SAME"))
        return tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(features, whole, 1, "SAME")), [1, 2])

    in_int8 = int8_function(function, SPEC, [PIXELS])
    operations = [operation.type for operation in frozen_function(in_int8, SPEC).graph.get_operations()]
    assert (operations.count("_FusedQuantizedConv2D"), operations.count("Conv2D")) == (1, 3)
    expected = function(PIXELS).numpy()
    np.testing.assert_allclose(in_int8(PIXELS), expected, atol=0.02 * expected.max())


def test_a_network_without_such_layers_and_no_photos_are_said(model, inception):
    with pytest.raises(TrainingError, match="as InceptionV3 has, and this network has none"):
        int8_of(model)
    with pytest.raises(TrainingError, match="how large the numbers in the network get, and none can be used"):
        int8_function(lambda pixels: inception(pixels, training=False), SPEC, [PIXELS[:0]])


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_model_with_a_table_is_said(precision):
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([0], [1.0]), 2.0)
    function = lambda pixels: tf.reduce_mean(pixels, [1, 2]) * table.lookup(tf.constant([0]))  # noqa: E731
    with pytest.raises(TrainingError, match="the model has tables, or other state that is no variable"):
        frozen_classifier(ImageClassifier(function, None), SIZE, SIZE, precision)


def test_the_provenance_says_what_was_gained_here(model):
    classifier = ImageClassifier(lambda pixels: model(pixels, training=False), model)
    in_float32 = frozen_classifier(classifier, SIZE, SIZE, "float32")
    assert in_float32.provenance == {"precision": "float32"}
    of_none = tf.function(in_float32.predict)({"image": PIXELS[:0]})
    assert of_none.shape == (0, model.output_shape[1])
    provenance = frozen_classifier(classifier, SIZE, SIZE, "bfloat16").provenance
    assert provenance["precision"] == "bfloat16"
    assert set(provenance["time_of_float32"]) == {"1", "8"}
    assert all(0 < share < 100 for share in provenance["time_of_float32"].values())


def colours(folder: Path) -> tuple[Trainer, str]:
    """A trainer of photos of one colour each, and a backbone of convolutions with ReLUs."""
    keras.utils.set_random_seed(2)
    pixels = keras.Input([32, 32, 3])
    features = keras.layers.Conv2D(16, 3, strides=2, activation="relu")(pixels)
    for number in range(2):
        features = keras.layers.Conv2D(32, 3, activation="relu", name=f"block_{number}")(features)
    keras.Model(pixels, features).save(folder / "backbone.keras")
    return Trainer(folder), f"{folder}/backbone.keras"


def test_int8_that_is_worth_it_is_served_as_the_trainer_computes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "_INT8_TIME", 1000)
    trainer, backbone = colours(tmp_path)
    export, said = trainer.run(1, None, weights=backbone, precision="int8")
    assert (said["precision"], said["told"]) == ("int8", {"float32": 1.0, "int8": 1.0})
    assert set(said["time_of_float32"]) == {"1", "8"}
    assert b"_FusedQuantizedConv2D" in Path(export, "saved_model.pb").read_bytes()
    expected = reference_predictions.read(f"{Path(export).parent}/{reference_predictions.FILE_NAME}")
    records = [record.numpy() for record in tf.data.TFRecordDataset(trainer.examples, compression_type="GZIP")]
    files = [tf.train.Example.FromString(record).features.feature["image"].bytes_list.value[0] for record in records]
    rows = [expected.ids.index(reference_predictions.example_id(record)) for record in records]
    rest = {"image": [{"b64": b64encode(file).decode()} for file in files]}
    served = answers_over_both(export, rest, {"image": np.array(files, object)}, tmp_path)
    assert served == [expected.labels[row] for row in rows] == ["red", "green", "blue"] * 8
    session = SessionModel(export)
    probabilities = session.run("classify", {"image_bytes": np.array(files, object)})["probabilities"]
    session.close()
    np.testing.assert_allclose(probabilities, -np.sort(-expected.probabilities[rows]), atol=1e-5)
    # In float32 they are others.
    in_float32, _ = trainer.run(2, None, weights=backbone)
    others = reference_predictions.read(f"{Path(in_float32).parent}/{reference_predictions.FILE_NAME}")
    moved = np.abs(others.probabilities - expected.probabilities[[expected.ids.index(id_) for id_ in others.ids]])
    assert 1e-5 < moved.max() < 0.05


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"_INT8_TIME": 0.001}, r"the network takes \d+\.\d+ at batch 1, .* expected at most 0.001 of the time"),
        ({"_INT8_TIME": 1000, "_INT8_LOSS": -1}, r"tells 1\.0000 of the photos for 1\.0000; expected .* most -1 fewer"),
        ({"MobileNet": True}, "int8 is refused: it is for convolutions with a ReLU before and behind them"),
    ],
)
def test_int8_that_is_not_worth_it_or_cannot_be_leaves_float32_with_the_figures(tmp_path, monkeypatch, changed, reason):
    trainer, backbone = colours(tmp_path)
    for name in set(changed) - {"MobileNet"}:
        monkeypatch.setattr(train, name, changed[name])
    mobilenet = {"weights": "none", "blocks": ["conv_dw_1"], "epochs": 1}
    options = mobilenet if "MobileNet" in changed else {"weights": backbone}
    export, said = trainer.run(1, None, **options, precision="int8")
    assert said["precision"] == "float32"
    assert re.search(reason, remark(said))
    assert remark(said).startswith("exported in float32, for int8 is refused: ")
    assert b"_FusedQuantizedConv2D" not in Path(export, "saved_model.pb").read_bytes()
