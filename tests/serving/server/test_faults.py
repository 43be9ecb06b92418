"""Faults of models and of the machine, and the codes that clients see."""

from __future__ import annotations

import gc
import os
import shutil
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from serving.client.errors import CanonicalCode, PredictionError
from serving.client.grpc import GrpcClient
from serving.client.retries import RetryPolicy
from serving.server import models
from serving.server.app import EmbeddedServer
from serving.server.config import BatchingParameters
from serving.server.errors import ServingError
from serving.server.inference import Inference
from serving.session_model import SessionModel
from tests.serving.server.conftest import QUICK_OPTIONS, Rest
from tests.serving.server.test_versions import answer_of, serving, statuses, wait_until


def half_copied(version: Path) -> None:
    (version / "variables" / "variables.data-00000-of-00001").unlink()


def truncated_variables(version: Path) -> None:
    data = version / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:2])


def truncated_index(version: Path) -> None:
    index = version / "variables" / "variables.index"
    index.write_bytes(index.read_bytes()[:-20])


def noise(version: Path) -> None:
    (version / "saved_model.pb").write_bytes(os.urandom(10_000))


def truncated_graph(version: Path) -> None:
    graph = version / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])


def empty_graph(version: Path) -> None:
    (version / "saved_model.pb").write_bytes(b"")


def a_file_instead_of_a_directory(version: Path) -> None:
    shutil.rmtree(version)
    version.write_text("not a directory")


def a_link_to_itself(version: Path) -> None:
    """What cannot be opened, not even by root."""
    shutil.rmtree(version)
    version.symlink_to(version.name)


def unreadable_directory(version: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything; a_link_to_itself is what it cannot")
    version.chmod(0)


def noise_for_warm_up(version: Path) -> None:
    (version / "assets.extra").mkdir()
    (version / "assets.extra" / "tf_serving_warmup_requests").write_bytes(os.urandom(1000))


@pytest.mark.parametrize(
    "damage",
    [
        half_copied,
        truncated_variables,
        truncated_index,
        noise,
        truncated_graph,
        empty_graph,
        a_file_instead_of_a_directory,
        a_link_to_itself,
        unreadable_directory,
        noise_for_warm_up,
    ],
)
def test_a_damaged_version_is_named_in_the_status_and_the_good_one_keeps_serving(
    tmp_path, half_plus_two_versions, damage: Callable[[Path], None]
):
    base_path = tmp_path / "models"
    half_plus_two_versions(base_path, 1)
    half_plus_two_versions(tmp_path / "others", 2)
    damage(tmp_path / "others" / "2")

    with serving(base_path) as server:
        (tmp_path / "others" / "2").rename(base_path / "2")
        wait_until(lambda: statuses(server).get(2, ("", ""))[0] == "END")

        assert statuses(server)[1] == ("AVAILABLE", "OK")
        assert answer_of(server) == 1.0
        document = Rest(server.rest_port).call("GET", "/v1/models/m/versions/2").json
        [status] = document["model_version_status"]
        assert status["status"]["error_code"] != "OK"
        assert status["status"]["error_message"]
        assert str(tmp_path) not in status["status"]["error_message"]

        half_plus_two_versions(base_path, 3)
        wait_until(lambda: answer_of(server) == 3.0)


def test_a_base_path_that_is_a_file_for_a_while_unloads_nothing(tmp_path, half_plus_two_versions):
    base_path = tmp_path / "models"
    half_plus_two_versions(base_path, 1)

    with serving(base_path) as server:
        base_path.rename(tmp_path / "away")
        base_path.write_text("in its place")
        threading.Event().wait(0.3)
        assert answer_of(server) == 1.0
        base_path.unlink()
        (tmp_path / "away").rename(base_path)
        half_plus_two_versions(base_path, 2)
        wait_until(lambda: answer_of(server) == 2.0)


def loaded_models() -> weakref.WeakSet[SessionModel]:
    gc.collect()
    return weakref.WeakSet(thing for thing in gc.get_objects() if isinstance(thing, SessionModel))


@pytest.mark.parametrize("batching", [None, BatchingParameters()])
def test_unloaded_and_failed_versions_leave_no_session_and_no_thread_behind(tmp_path, half_plus_two_versions, batching):
    before, threads = loaded_models(), threading.active_count()
    half_plus_two_versions(tmp_path, 1)

    with EmbeddedServer({"m": str(tmp_path)}, replace(QUICK_OPTIONS, batching=batching)) as server:
        for number in range(2, 6):
            half_plus_two_versions(tmp_path, number)
            wait_until(lambda number=number: answer_of(server) == float(number))
            (tmp_path / f"{number}" / "saved_model.pb").rename(tmp_path / "graph")
            (tmp_path / f"{number + 100}").mkdir()
            wait_until(lambda number=number: statuses(server).get(number + 100) == ("END", "NOT_FOUND"))
            (tmp_path / f"{number + 100}").rmdir()
            (tmp_path / "graph").rename(tmp_path / f"{number}" / "saved_model.pb")
        wait_until(lambda: all(state == "END" for number, (state, _) in statuses(server).items() if number != 5))
        assert len(loaded_models() - before) == 1

    assert len(loaded_models() - before) == 0
    wait_until(lambda: threading.active_count() <= threads)


def test_of_the_versions_that_are_gone_the_status_names_only_the_newest(tmp_path, half_plus_two_versions, monkeypatch):
    monkeypatch.setattr(models, "REMEMBERED_VERSIONS", 3)
    half_plus_two_versions(tmp_path, 1)
    with serving(tmp_path) as server:
        for number in range(11, 17):
            (tmp_path / str(number)).mkdir()
            wait_until(lambda number=number: number in statuses(server))
            (tmp_path / str(number)).rmdir()
        half_plus_two_versions(tmp_path, 20)
        wait_until(lambda: answer_of(server) == 20.0)

        assert {16, 15, 14} <= statuses(server).keys() <= {20, 16, 15, 14, 1}


def test_a_saved_model_whose_requests_would_all_fail_is_not_loaded(tmp_path, half_plus_two_versions):
    """Python's loader takes it, and a session fails on the variables, which it does not find."""
    half_plus_two_versions(tmp_path / "models", 1)
    network = keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])
    signature = tf.function(lambda x: {"y": network(x)}, input_signature=[tf.TensorSpec([None, 1], tf.float32)])
    tf.saved_model.save(network, str(tmp_path / "2"), signatures={"serving_default": signature})
    assert tf.saved_model.load(str(tmp_path / "2")).signatures["serving_default"](tf.ones([1, 1]))["y"].shape == [1, 1]

    with serving(tmp_path / "models") as server:
        (tmp_path / "2").rename(tmp_path / "models" / "2")
        wait_until(lambda: statuses(server).get(2) == ("END", "FAILED_PRECONDITION"))

        assert answer_of(server) == 1.0


# http_server.cc, ToHTTPStatusCode.
HTTP_STATUS = {
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}


@pytest.fixture(params=HTTP_STATUS)
def code(request, monkeypatch) -> CanonicalCode:
    """What every call of a model ends with."""
    code = CanonicalCode[request.param]

    async def fail(*_: object, **__: object) -> None:
        raise ServingError(code, f"it ended with {code.name}")

    monkeypatch.setattr(Inference, "run", fail)
    return code


def test_a_canonical_code_is_answered_with_its_http_status(code, rest):
    answer = rest.predict("half_plus_two", {"instances": [1.0]})
    assert answer.status == HTTP_STATUS[code.name]
    assert answer.error == f"it ended with {code.name}"


def test_a_canonical_code_reaches_a_grpc_client_unchanged(code, server):
    with (
        GrpcClient(port=server.grpc_port, retry=RetryPolicy(attempts=1)) as client,
        pytest.raises(PredictionError) as raised,
    ):
        client.predict("half_plus_two", {"x": [1.0]})
    assert raised.value.code is code
    assert raised.value.message == f"it ended with {code.name}"
