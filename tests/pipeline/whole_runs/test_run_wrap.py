"""An existing classifier with ImageNet's labels, from a folder of photos to a served label."""

from __future__ import annotations

import base64
import io
import json
import os
import runpy
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.client.grpc import GrpcClient
from serving.server.app import EmbeddedServer
from serving.server.options import ServerOptions
from tests.pipeline.conftest import Finished, ingraph, strings
from trainers.image.options import IMAGENET, read_label_file

# InceptionV3 takes nothing smaller.
SIZE = 75
PHOTOS = 100
LABELS = read_label_file(IMAGENET, background_first=False)
# How far a served probability may be from Keras's own.
NEAR = 1e-4

CONFIG = f"""
name: imagenet
task: image
data: {{path: photos.csv}}
preprocessing: {{height: {SIZE}, width: {SIZE}, antialias: false}}
trainer: {{mode: wrap, classifier: InceptionV3, weights: classifier.weights.h5, labels: imagenet}}
serving_check: {{maximum_examples: 16}}
"""


@pytest.fixture(scope="module")
def test_data() -> Path:
    folder = os.environ.get("INGRAPH_TEST_DATA")
    if not folder:
        pytest.skip("INGRAPH_TEST_DATA names no folder with the flowers and the pretrained backbone")
    return Path(folder)


@pytest.fixture(scope="module")
def files(test_data) -> list[Path]:
    found = sorted((test_data / "flowers").glob("*/*.jpg"))
    return found[:: len(found) // PHOTOS][:PHOTOS]


@pytest.fixture(scope="module")
def pixels(files) -> np.ndarray:
    """What Keras is given: [-1, 1], made here with nothing of the project's."""
    resized = [tf.image.resize(tf.io.decode_jpeg(file.read_bytes(), channels=3), [SIZE, SIZE]) for file in files]
    return np.stack(resized) / 127.5 - 1


@pytest.fixture(scope="module")
def model(test_data, pixels, tmp_path_factory) -> keras.Model:
    """A pretrained backbone under a head drawn at random, which looks at what tells the photos apart."""
    weights = str(tmp_path_factory.mktemp("backbone") / "notop.weights.h5")
    to_keras_weights = runpy.run_path(str(test_data / "to_keras_weights.py"))
    to_keras_weights["main"](str(test_data / "inception_v3_notop_8bit.npz"), weights)
    classifier = keras.applications.InceptionV3(weights=None, input_shape=(SIZE, SIZE, 3))
    backbone = keras.applications.InceptionV3(include_top=False, weights=weights, input_shape=(SIZE, SIZE, 3))
    for target, source in zip(classifier.layers, backbone.layers, strict=False):
        target.set_weights(source.get_weights())
    features = backbone.predict(pixels, verbose=0).mean(axis=(1, 2))
    kernel = np.random.default_rng(0).normal(size=[features.shape[1], len(LABELS)])
    kernel *= 3 / ((features - features.mean(axis=0)) @ kernel).std()
    classifier.get_layer("predictions").set_weights([kernel, -features.mean(axis=0) @ kernel])
    return classifier


@pytest.fixture(scope="module")
def keras_says(model, pixels) -> np.ndarray:
    return model.predict(pixels, verbose=0)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("wrapped")


@pytest.fixture(scope="module")
def finished(model, files, workdir) -> Finished:
    model.save_weights(workdir / "classifier.weights.h5")
    # Half of the photos have no label; "daisy" is one of ImageNet's, most species are not.
    rows = [f"{file},{file.parent.name if number % 2 else ''}" for number, file in enumerate(files)]
    (workdir / "photos.csv").write_text("\n".join(["path,label", *rows]))
    (workdir / "imagenet.yaml").write_text(CONFIG)
    done = ingraph("run", str(workdir / "imagenet.yaml"), "--workdir", str(workdir), fresh=True)
    assert done.status == 0, done.output + done.errors
    return done


@pytest.fixture(scope="module")
def server(finished, workdir) -> Iterator[EmbeddedServer]:
    models = {"imagenet": str(workdir / "models/imagenet")}
    with EmbeddedServer(models, ServerOptions(rest_port=0, grpc_port=0)) as running:
        yield running


def as_png(file: Path) -> bytes:
    """The very pixels that the JPEG decodes to."""
    encoded = io.BytesIO()
    Image.fromarray(tf.io.decode_jpeg(file.read_bytes(), channels=3).numpy()).save(encoded, "PNG")
    return encoded.getvalue()


def assert_best(served: list[str], expected: np.ndarray) -> None:
    """Keras's label, wherever the two best are further apart than probabilities may be."""
    best = np.sort(expected, axis=1)
    apart = best[:, -1] - best[:, -2] > NEAR
    assert apart.mean() > 0.95
    wanted = [LABELS[number] for number in expected.argmax(axis=1)]
    assert [a for a, sure in zip(served, apart, strict=True) if sure] == [
        b for b, sure in zip(wanted, apart, strict=True) if sure
    ]


def test_photos_fall_into_many_classes(keras_says):
    assert len(set(keras_says.argmax(axis=1).tolist())) >= 40


def test_the_run_ends_with_a_label_of_imagenet(finished, workdir):
    assert "serving    answers as the wrapped model does in its own library\n" in finished.output
    assert f"published as version 1: {workdir}/models/imagenet/1" in finished.output
    answers = [line.rpartition("-> ")[2] for line in finished.output.splitlines() if line.startswith(("REST", "gRPC"))]
    assert len(answers) == 2 and answers[0] == answers[1] and answers[0] in LABELS


@pytest.mark.parametrize("encoded", ["JPEG", "PNG"])
def test_the_served_label_is_kerass(client, files, keras_says, encoded):
    served = []
    for start in range(0, PHOTOS, 25):
        batch = [file.read_bytes() if encoded == "JPEG" else as_png(file) for file in files[start : start + 25]]
        texts = [base64.urlsafe_b64encode(photo).decode() for photo in batch]
        served += strings(client.predict("imagenet", {"image": texts})["output_0"])
    assert_best(served, keras_says)


@pytest.mark.parametrize("encoded", ["JPEG", "PNG"])
def test_the_served_probabilities_are_kerass(client, files, keras_says, encoded):
    batch = [file.read_bytes() if encoded == "JPEG" else as_png(file) for file in files[:50]]
    answer = client.predict("imagenet", {"image_bytes": batch}, signature="classify")
    ranked = np.array(strings(answer["labels"])).reshape(50, 5)
    probabilities = np.asarray(answer["probabilities"], np.float32)
    numbers = {label: number for number, label in enumerate(LABELS)}
    expected = np.array([[keras_says[row, numbers[label]] for label in ranked[row]] for row in range(50)])
    np.testing.assert_allclose(probabilities, expected, atol=NEAR)
    np.testing.assert_allclose(probabilities, -np.sort(-keras_says[:50], axis=1)[:, :5], atol=NEAR)
    assert set(strings(answer["error"])) == {""}


def test_all_thousand_probabilities_are_kerass_in_the_order_of_the_labels(server, files, keras_says):
    examples = []
    for file in files[:20]:
        example = tf.train.Example()
        example.features.feature["image"].bytes_list.value.append(file.read_bytes())
        examples.append(example.SerializeToString())
    with GrpcClient(port=server.grpc_port) as client:
        answer = client.predict("imagenet", {"examples": examples}, signature="serve_examples")
    np.testing.assert_allclose(answer["probabilities"], keras_says[:20], atol=NEAR)


def test_a_stock_rest_client_reads_the_label_at_outputs_0(server, files, keras_says):
    text = base64.urlsafe_b64encode(files[0].read_bytes()).decode()
    body = json.dumps({"inputs": {"image": [text]}}).encode()
    address = f"http://{server.host}:{server.rest_port}/v1/models/imagenet:predict"
    with urllib.request.urlopen(urllib.request.Request(address, body)) as answer:
        assert json.load(answer)["outputs"][0] == LABELS[keras_says[0].argmax()]


def test_a_stock_grpc_client_reads_the_label_at_string_val_0(server, files, keras_says):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "imagenet"
    text = base64.urlsafe_b64encode(files[1].read_bytes())
    request.inputs["image"].CopyFrom(tf.make_tensor_proto([text]))
    with grpc.insecure_channel(f"{server.host}:{server.grpc_port}") as channel:
        answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=60)
    assert answer.outputs["output_0"].string_val[0].decode() == LABELS[keras_says[1].argmax()]
