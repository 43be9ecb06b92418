"""Networks in bfloat16: which operations are, how far the answers move, and that a session runs them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from serving.session_model import SessionModel
from serving.signatures.common import frozen_function
from trainers.image.bfloat16 import bfloat16_function
from trainers.image.models import ImageClassifier, frozen_classifier

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


def test_a_session_runs_it_and_its_weights_are_in_the_file_once(model, tmp_path):
    frozen = frozen_classifier(
        ImageClassifier(lambda pixels: model(pixels, training=False), model), SIZE, SIZE, "bfloat16"
    )
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
