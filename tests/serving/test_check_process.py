"""The process that runs a SavedModel, and what it imports."""

import gc
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from serving.loading import garbage_collection_off, garbage_collection_paused
from serving.server.errors import ServingError
from serving.server.json_requests import parse_document


@pytest.fixture
def double(tmp_path):
    module = tf.Module()
    module.double = tf.function(
        lambda x: {"y": 2 * x, "s": tf.strings.as_string(x)}, input_signature=[tf.TensorSpec([None], tf.int64, "x")]
    )
    tf.saved_model.save(module, str(tmp_path / "double"), {"double": module.double})
    return str(tmp_path / "double")


def answers(*questions, options=()):
    """What the process answers, and what it writes to standard error."""
    process = subprocess.run(
        [sys.executable, *options, "-m", "serving.check_process"],
        input=b"".join(map(pickle.dumps, questions)),
        capture_output=True,
        check=True,
        timeout=120,
    )
    stream, found = process.stdout, []
    while stream:
        found.append(pickle.loads(stream))
        stream = stream[len(pickle.dumps(found[-1])) :]
    return found, process.stderr.decode()


def test_it_loads_runs_and_times_a_model_and_goes_on_after_a_failure(double):
    inputs = {"x": np.array([3, -4], np.int64)}
    found, _ = answers(
        ("run", "double", inputs),
        ("load", double),
        ("run", "triple", inputs),
        ("run", "double", {"x": np.array([b"three"], np.object_)}),
        ("run", "double", inputs),
        ("time", "double", inputs, 7),
        ("load", f"{double}/nowhere"),
    )
    assert [kind for kind, _ in found] == ["failed", "loaded", "failed", "failed", "outputs", "seconds", "failed"]
    assert "load comes first" in found[0][1]
    assert found[1][1] > 0
    assert "triple" in found[2][1]
    assert found[4][1]["y"].tolist() == [6, -8]
    assert found[4][1]["s"].tolist() == [b"3", b"-4"]
    assert len(found[5][1]) == 7
    assert min(found[5][1]) > 0
    assert "nowhere" in found[6][1]


@pytest.mark.parametrize("legacy_keras", ["0", "1"])
def test_it_imports_tensorflow_and_numpy_and_nothing_that_made_the_model(double, monkeypatch, legacy_keras):
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", legacy_keras)
    _, imports = answers(("load", double), options=("-X", "importtime"))
    names = {line.rpartition("|")[2].strip() for line in imports.splitlines() if line.startswith("import time:")}
    packages = {name.partition(".")[0] for name in names}
    assert {"tensorflow", "numpy", "serving"} <= packages
    made_the_model = {
        "keras",
        "tf_keras",
        "tfx",
        "tfx_bsl",
        "apache_beam",
        "tensorflow_transform",
        "tensorflow_serving",
        "pipeline",
        "components",
        "transform",
        "trainers",
    }
    assert packages & made_the_model == set()
    assert {name for name in names if name.startswith("serving.")} == {
        "serving.session_model",
        "serving.loading",
    }


def test_the_garbage_collector_rests_during_imports_and_works_afterwards():
    frozen = gc.get_freeze_count()
    with garbage_collection_paused():
        assert not gc.isenabled()
        kept = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen + len(kept)


@pytest.mark.parametrize("first", [b"", b"NaN,"])  # Python's own parser takes the latter
def test_a_large_document_is_parsed_without_the_garbage_collector(first):
    body = b'{"instances": [' + first + b"[]," * 100_000 + b"[]]}"
    collections = []
    gc.callbacks.append(lambda phase, info: collections.append(info["generation"]))
    try:
        document = parse_document(body)
    finally:
        gc.callbacks.pop()
    assert len(document["instances"]) > 100_000
    assert len(collections) <= 8  # right before and after it; by itself it comes for every few hundred lists
    assert gc.isenabled()


def test_the_garbage_collector_works_again_when_the_last_that_wanted_it_off_is_done():
    with garbage_collection_off():
        with pytest.raises(ServingError), garbage_collection_off():
            parse_document(b'{"instances": [' + b"1," * 100_000 + b"}")
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_import_that_fails_leaves_the_garbage_collector_on():
    with pytest.raises(ImportError), garbage_collection_paused():
        import no_such_module  # noqa: F401
    assert gc.isenabled()
