"""The signatures of image models, with good and bad images."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from serving.client.grpc import GrpcClient
from serving.client.rest import RestClient
from serving.session_model import SessionModel
from tests.serving.colour_photos import (
    BAD,
    BROKEN_TEXT,
    COLOURS,
    LABELS,
    MAX_PIXELS,
    TOO_LARGE,
    UNKNOWN,
    animation_with_an_enormous_frame,
    enormous_jpeg,
    enormous_png,
    example,
    nearest_colour,
    photo,
    save_colour_photo_model,
)


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory) -> str:
    return save_colour_photo_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(saved_model):
    loaded = SessionModel(saved_model)
    yield loaded
    loaded.close()


def array(items: list[bytes]) -> np.ndarray:
    return np.array(items, dtype=object)


def served(model: SessionModel, images: list[bytes]) -> list[str]:
    return [label.decode() for label in model.run("serving_default", {"image": array(images)})["output_0"]]


def classified(model: SessionModel, files: list[bytes]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    answer = model.run("classify", {"image_bytes": array(files)})
    return answer["labels"], answer["probabilities"], [error.decode() for error in answer["error"]]


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "BMP"])
def test_bytes_are_answered_with_their_label(model, image_format):
    assert served(model, [photo(label, image_format) for label in LABELS]) == LABELS


def test_base64_text_of_either_alphabet_padded_or_not_is_answered_with_its_label(model):
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    Image.fromarray(rng.integers(200, 256, [31, 33, 3], np.uint8)).save(file, "JPEG")
    standard = base64.b64encode(file.getvalue())
    url_safe = base64.urlsafe_b64encode(file.getvalue())
    # Both alphabets are really used.
    assert {b"+", b"/"} <= {bytes([byte]) for byte in standard}
    assert {b"-", b"_"} <= {bytes([byte]) for byte in url_safe}
    texts = [standard, url_safe, standard.rstrip(b"="), url_safe.rstrip(b"=")]
    others = [photo(label) for label in LABELS[:3]]  # with one, two and no characters of padding
    texts += [text for other in others for text in (base64.b64encode(other), base64.b64encode(other).rstrip(b"="))]
    expected = ["white"] * 4 + [label for label in LABELS[:3] for _ in range(2)]
    assert served(model, texts) == expected
    assert [served(model, [text])[0] for text in texts] == expected


@pytest.mark.parametrize("extra", [0, 1, 2])
def test_every_length_of_padding_is_read(model, extra):
    # What follows the end of a PNG is not looked at, so the length can be chosen.
    file = photo("green") + b"\0" * extra
    assert served(model, [base64.b64encode(file), base64.b64encode(file).rstrip(b"=")]) == ["green", "green"]


def test_a_text_and_bytes_of_the_same_photo_share_a_batch(model):
    assert served(model, [photo("red"), base64.b64encode(photo("blue")), photo("yellow", "JPEG")]) == [
        "red",
        "blue",
        "yellow",
    ]


def test_classify_ranks_the_best_labels_with_their_probabilities(model):
    labels, probabilities, errors = classified(model, [photo("yellow"), photo("blue")])
    images = tf.constant([[[COLOURS[label]]] for label in ("yellow", "blue")], tf.float32) / 127.5 - 1
    expected = nearest_colour(images).numpy()
    assert errors == ["", ""]
    assert labels.shape == probabilities.shape == (2, 5)
    for row in range(2):
        order = np.argsort(-expected[row], kind="stable")[:5]
        np.testing.assert_allclose(probabilities[row], expected[row][order], rtol=1e-5)
        assert [label.decode() for label in labels[row]] == [LABELS[number] for number in order]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_photo_has_no_label_no_probabilities_and_a_reason(model, name):
    file, reason = BAD[name]
    labels, probabilities, errors = classified(model, [file])
    assert errors == [reason]
    assert set(labels.ravel()) == {b""} and not probabilities.any()
    assert served(model, [file]) == [""]
    assert served(model, [base64.b64encode(file)]) == [""]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_photo_among_eight_good_ones_changes_none_of_their_answers(model, name):
    file, reason = BAD[name]
    good = [photo(LABELS[number % len(LABELS)], ("PNG", "JPEG")[number % 2]) for number in range(8)]
    batch = [*good[:3], file, *good[3:]]
    labels, probabilities, errors = classified(model, batch)
    good_labels, good_probabilities, _ = classified(model, good)
    rows = [row for row in range(9) if row != 3]
    assert errors == [""] * 3 + [reason] + [""] * 5
    np.testing.assert_array_equal(labels[rows], good_labels)
    np.testing.assert_allclose(probabilities[rows], good_probabilities, rtol=1e-6)
    expected = [LABELS[number % len(LABELS)] for number in range(8)]
    assert served(model, batch) == [*expected[:3], "", *expected[3:]]


@pytest.mark.parametrize("name", BROKEN_TEXT)
def test_broken_base64_has_no_label_and_leaves_its_batch_alone(model, name):
    good = [base64.urlsafe_b64encode(photo(LABELS[number % len(LABELS)])) for number in range(8)]
    expected = [LABELS[number % len(LABELS)] for number in range(8)]
    assert served(model, [BROKEN_TEXT[name]]) == [""]
    assert served(model, [*good[:5], BROKEN_TEXT[name], *good[5:]]) == [*expected[:5], "", *expected[5:]]


def test_a_batch_of_bad_photos_only_is_answered(model):
    assert served(model, [file for file, _ in BAD.values()]) == [""] * len(BAD)


def test_an_empty_batch_is_answered(model):
    assert served(model, []) == []


def test_examples_are_answered_in_the_order_of_the_vocabulary(model):
    files = [photo("red"), b"text", photo("black")]
    answer = model.run("serve_examples", {"examples": array([example(image=file) for file in files])})["probabilities"]
    assert answer.shape == (3, len(LABELS))
    assert [LABELS[best] for best in answer[[0, 2]].argmax(axis=1)] == ["red", "black"]
    np.testing.assert_allclose(answer[[0, 2]].sum(axis=1), 1, rtol=1e-5)
    assert not answer[1].any()


def test_transformed_features_carry_pixels_reasons_and_the_label_where_there_is_one(model):
    rows = [example(image=photo("blue"), label=b"blue", path=b"p", checksum=b"c"), example(image=b"text"), example()]
    features = model.run("transform_features", {"examples": array(rows)})
    # To float32's rounding: a photo may be resized.
    np.testing.assert_allclose(features["image"][0], np.broadcast_to([-1.0, -1.0, 1.0], [8, 8, 3]), atol=5e-7)
    assert not features["image"][1:].any()
    assert features["error"].tolist() == [b"", UNKNOWN.encode(), b"image is empty"]
    assert features["label"].tolist() == [LABELS.index("blue"), -1, -1]


def test_the_inputs_and_outputs_are_those_of_the_contract(model):
    described = {
        name: (sorted(model.signatures[name].inputs), sorted(model.signatures[name].outputs))
        for name in ("serving_default", "classify", "serve_examples", "transform_features")
    }
    assert described == {
        "serving_default": (["image"], ["output_0"]),
        "classify": (["image_bytes"], ["error", "labels", "probabilities"]),
        "serve_examples": (["examples"], ["probabilities"]),
        "transform_features": (["examples"], ["error", "image", "label"]),
    }


MEASURE = """
import json, sys
import numpy as np
from serving.session_model import SessionModel

path, *files = sys.argv[1:]
model = SessionModel(path)

def classify(files):
    images = np.array([open(file, "rb").read() for file in files], dtype=object)
    return [error.decode() for error in model.run("classify", {"image_bytes": images})["error"]]

def memory(name):
    # Not getrusage: its maximum includes that of the process that started this one.
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines[name].split()[0]) // 1024

classify(files[:1] * 8)
open("/proc/self/clear_refs", "w").write("5")  # the highest so far counts from here on
before = memory("VmRSS")
errors = classify(files)
print(json.dumps({"errors": errors, "growth": memory("VmHWM") - before, "modules": sorted(sys.modules)}))
"""


def test_photos_that_would_take_too_much_memory_when_decoded_take_none(saved_model, tmp_path):
    # Each takes 286 MiB once decoded, and is complete but for the JPEG.
    bombs = [enormous_png(10000, 10000, rows=10000), enormous_jpeg(), animation_with_an_enormous_frame()]
    photos = [photo("red"), *bombs, photo("blue", width=1000, height=999)]
    paths = []
    for number, content in enumerate(photos):
        paths.append(str(tmp_path / f"{number}"))
        Path(paths[-1]).write_bytes(content)
    root = Path(__file__).parents[2]
    output = subprocess.check_output([sys.executable, "-c", MEASURE, saved_model, *paths], cwd=root, text=True)
    measured = json.loads(output)
    too_large = f"image is 10000x10000, at most {MAX_PIXELS} pixels are allowed"
    assert measured["errors"] == ["", too_large, TOO_LARGE, "", ""]
    assert measured["growth"] < 100  # MiB; the largest photo that is allowed takes 3
    assert not {"keras", "tfx", "tensorflow_transform"} & {name.split(".")[0] for name in measured["modules"]}


# A process of its own: its memory is the server's alone.
SERVE = """
import sys
from serving.server.app import EmbeddedServer
from serving.server.options import ServerOptions

with EmbeddedServer({"photos": sys.argv[1]}, ServerOptions(rest_port=0, grpc_port=0)) as server:
    print(server.rest_port, server.grpc_port, flush=True)
    sys.stdin.read()
"""
GOOD = [photo(LABELS[number % len(LABELS)], ("PNG", "JPEG")[number % 2]) for number in range(8)]
GOOD_LABELS = [LABELS[number % len(LABELS)] for number in range(8)]


class Server:
    """A running server, and how much memory it takes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.rest_port, self.grpc_port = map(int, process.stdout.readline().split())

    def mebibytes(self, name: str) -> int:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines())
        return int(lines[name].split()[0]) // 1024

    def count_peak_from_here(self) -> None:
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("photos")
    saved_model = save_colour_photo_model(folder)
    base_path = folder / "base"
    base_path.mkdir()
    Path(saved_model).rename(base_path / "1")
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(base_path)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield Server(process)
        assert process.poll() is None  # it lives
        process.communicate(timeout=60)


@pytest.fixture(scope="module", params=["REST", "gRPC"])
def client(request, server) -> Iterator[RestClient | GrpcClient]:
    connected = RestClient(port=server.rest_port) if request.param == "REST" else GrpcClient(port=server.grpc_port)
    with connected:
        yield connected


def strings(values: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else value for value in np.asarray(values).reshape(-1).tolist()]


def served_labels(client: RestClient | GrpcClient, images: list[bytes]) -> list[str]:
    """Labels of files that are sent as base64 text."""
    texts = [base64.urlsafe_b64encode(image).decode() for image in images]
    return strings(client.predict("photos", {"image": texts})["output_0"])


def errors(client: RestClient | GrpcClient, images: list[bytes]) -> list[str]:
    return strings(client.predict("photos", {"image_bytes": images}, signature="classify")["error"])


@pytest.mark.parametrize("name", BAD)
def test_a_bad_photo_has_its_reason_and_good_ones_their_labels(client, name):
    file, reason = BAD[name]
    assert errors(client, [file]) == [reason]
    assert served_labels(client, [file]) == [""]
    batch = [*GOOD[:3], file, *GOOD[3:]]
    assert errors(client, batch) == [""] * 3 + [reason] + [""] * 5
    assert served_labels(client, batch) == [*GOOD_LABELS[:3], "", *GOOD_LABELS[3:]]


@pytest.mark.parametrize("name", BROKEN_TEXT)
def test_broken_base64_has_no_label_and_good_ones_have_theirs(client, name):
    texts = [base64.b64encode(image).decode() for image in GOOD]
    broken = BROKEN_TEXT[name].decode()
    assert strings(client.predict("photos", {"image": [broken]})["output_0"]) == [""]
    answer = client.predict("photos", {"image": [*texts[:5], broken, *texts[5:]]})
    assert strings(answer["output_0"]) == [*GOOD_LABELS[:5], "", *GOOD_LABELS[5:]]


def test_photos_that_would_fill_the_memory_take_no_more_than_the_declared_limit_allows(client, server):
    # Complete but for the JPEG, and taking 286 MiB each once decoded.
    bombs = [enormous_png(10000, 10000, rows=10000), enormous_jpeg(), animation_with_an_enormous_frame()]
    largest = photo("blue", width=1000, height=MAX_PIXELS // 1000)
    assert served_labels(client, GOOD) == GOOD_LABELS
    server.count_peak_from_here()
    before = server.mebibytes("VmRSS")
    assert served_labels(client, bombs) == ["", "", "white"]  # of an animation, the first frame counts
    assert served_labels(client, [*GOOD, *bombs, largest]) == [*GOOD_LABELS, "", "", "white", "blue"]
    # A photo of so many pixels takes 3 MiB, a request 2 MiB several times over.
    assert server.mebibytes("VmHWM") - before < 100
