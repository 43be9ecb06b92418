"""Versions that come and go, with their warm-up."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import prediction_log_pb2

from serving.client.grpc import GrpcClient
from serving.client.rest import RestClient
from serving.model_store import make_key, publish, read_public_key, read_signing_key
from serving.server import versions
from serving.server.app import EmbeddedServer
from serving.server.config import LoadPolicy
from serving.server.options import ServerOptions
from tests.serving.server.conftest import QUICK, QUICK_OPTIONS, Rest
from tests.serving.server.small_models import save_examples

PATIENCE_SECONDS = 30.0


@contextmanager
def serving(base_path: Path, policy: LoadPolicy = QUICK) -> Iterator[EmbeddedServer]:
    with EmbeddedServer({"m": str(base_path)}, ServerOptions(rest_port=0, grpc_port=0, load_policy=policy)) as server:
        yield server


def statuses(server: EmbeddedServer) -> dict[int, tuple[str, str]]:
    with RestClient(port=server.rest_port) as client:
        return {status.version: (status.state, status.code.name) for status in client.status("m")}


def answer_of(server: EmbeddedServer) -> float | str:
    """What x = 0 is answered with, which is the version's number; or the error."""
    answer = Rest(server.rest_port).predict("m", {"instances": [0.0]})
    return answer.json["predictions"][0] if answer.status == 200 else answer.error


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def test_the_numerically_largest_version_is_served(tmp_path, half_plus_two_versions):
    for number in (9, 10):
        half_plus_two_versions(tmp_path, number)
    (tmp_path / "staged-11").mkdir()
    (tmp_path / "99x").mkdir()

    with serving(tmp_path) as server:
        assert answer_of(server) == 10.0
        assert statuses(server) == {10: ("AVAILABLE", "OK")}


def test_a_number_with_leading_zeros_is_that_version(tmp_path, half_plus_two_versions):
    half_plus_two_versions(tmp_path, 7)
    (tmp_path / "7").rename(tmp_path / "00000007")

    with serving(tmp_path) as server:
        assert answer_of(server) == 7.0
        assert statuses(server) == {7: ("AVAILABLE", "OK")}


def test_without_a_poll_interval_the_base_path_is_looked_at_once(tmp_path, half_plus_two_versions):
    half_plus_two_versions(tmp_path, 1)

    with serving(tmp_path, LoadPolicy(poll_seconds=0)) as server:
        half_plus_two_versions(tmp_path, 2)
        time.sleep(10 * QUICK.poll_seconds)
        assert answer_of(server) == 1.0
        assert statuses(server) == {1: ("AVAILABLE", "OK")}


def test_files_that_change_inside_a_loaded_version_are_not_noticed(tmp_path, half_plus_two_versions):
    half_plus_two_versions(tmp_path / "base", 1)
    half_plus_two_versions(tmp_path / "other", 2)

    with serving(tmp_path / "base") as server:
        shutil.copytree(tmp_path / "other/2", tmp_path / "base/1", dirs_exist_ok=True)
        time.sleep(10 * QUICK.poll_seconds)
        assert answer_of(server) == 1.0


def test_a_new_version_takes_over_without_one_failed_request(tmp_path, half_plus_two_versions):
    half_plus_two_versions(tmp_path, 1)
    answers: dict[str, list[float]] = {"rest": [], "grpc": []}
    done = threading.Event()

    def ask(kind: str, client: RestClient | GrpcClient) -> None:
        with client:
            while not done.is_set():
                answers[kind].append(float(client.predict("m", {"x": [0.0]})["y"][0]))

    with serving(tmp_path) as server:
        threads = [
            threading.Thread(target=ask, args=("rest", RestClient(port=server.rest_port))),
            threading.Thread(target=ask, args=("grpc", GrpcClient(port=server.grpc_port))),
        ]
        for thread in threads:
            thread.start()
        for number in (2, 3, 4):
            half_plus_two_versions(tmp_path, number)
            wait_until(lambda number=number: all(seen and seen[-1] == number for seen in answers.values()))
        # An answer's version never goes back, and a thread that fails stops answering.
        wait_until(lambda: statuses(server)[3] == ("END", "OK"))
        before = {kind: len(seen) for kind, seen in answers.items()}
        wait_until(lambda: all(len(seen) > before[kind] for kind, seen in answers.items()))
        done.set()
        for thread in threads:
            thread.join()
        assert statuses(server) == dict.fromkeys((1, 2, 3), ("END", "OK")) | {4: ("AVAILABLE", "OK")}

    for seen in answers.values():
        assert seen == sorted(seen)
        assert set(seen) == {1.0, 2.0, 3.0, 4.0}


def test_a_withdrawn_version_gives_way_to_the_one_before_it(tmp_path, half_plus_two_versions):
    for number in (1, 2):
        half_plus_two_versions(tmp_path, number)

    with serving(tmp_path) as server:
        assert answer_of(server) == 2.0
        (tmp_path / "2").rename(tmp_path / "withdrawn-2")
        wait_until(lambda: answer_of(server) == 1.0)
        (tmp_path / "withdrawn-2").rename(tmp_path / "2")
        wait_until(lambda: answer_of(server) == 2.0)


def test_without_any_version_left_the_model_is_not_found(tmp_path, half_plus_two_versions):
    half_plus_two_versions(tmp_path, 1)

    with serving(tmp_path) as server:
        shutil.rmtree(tmp_path / "1")
        wait_until(lambda: answer_of(server) == "Servable not found for request: Latest(m)")
        wait_until(lambda: statuses(server) == {1: ("END", "OK")})
        half_plus_two_versions(tmp_path, 1)
        wait_until(lambda: answer_of(server) == 1.0)


def test_a_base_path_that_vanishes_unloads_nothing(tmp_path, half_plus_two_versions):
    base_path = tmp_path / "base"
    half_plus_two_versions(base_path, 1)

    with serving(base_path) as server:
        base_path.rename(tmp_path / "elsewhere")
        time.sleep(10 * QUICK.poll_seconds)
        assert answer_of(server) == 1.0
        assert statuses(server) == {1: ("AVAILABLE", "OK")}
        (tmp_path / "elsewhere").rename(base_path)
        half_plus_two_versions(base_path, 2)
        wait_until(lambda: answer_of(server) == 2.0)


def test_a_version_that_cannot_be_loaded_is_named_in_the_status_and_the_old_one_stays(tmp_path, half_plus_two_versions):
    half_plus_two_versions(tmp_path, 1)
    with serving(tmp_path) as server:
        (tmp_path / "2").mkdir()
        wait_until(lambda: statuses(server).get(2) == ("END", "NOT_FOUND"))
        (tmp_path / "3").mkdir()
        (tmp_path / "3" / "saved_model.pb").write_bytes(b"noise" * 100)
        wait_until(lambda: statuses(server).get(3) == ("END", "DATA_LOSS"))

        assert answer_of(server) == 1.0
        with RestClient(port=server.rest_port) as client:
            messages = {status.version: status.message for status in client.status("m")}
        assert "should have a file called `saved_model.pb`" in messages[2]
        assert list(messages) == [3, 2, 1]
        assert not any(str(tmp_path) in message for message in messages.values())


def test_a_version_that_was_copied_slowly_is_loaded_at_the_next_try(tmp_path, half_plus_two_versions):
    half_plus_two_versions(tmp_path, 1)
    policy = LoadPolicy(poll_seconds=0.05, load_retries=100, load_retry_seconds=0.1)
    with serving(tmp_path, policy) as server:
        (tmp_path / "2").mkdir()
        wait_until(lambda: statuses(server).get(2) == ("END", "NOT_FOUND"))
        half_plus_two_versions(tmp_path / "other", 2)
        (tmp_path / "other" / "2").rename(tmp_path / "2")

        wait_until(lambda: answer_of(server) == 2.0)
        assert statuses(server)[2] == ("AVAILABLE", "OK")


def test_a_version_that_failed_for_good_is_tried_again_when_it_was_away(tmp_path, half_plus_two_versions):
    half_plus_two_versions(tmp_path, 1)
    with serving(tmp_path, LoadPolicy(poll_seconds=0.05, load_retries=0)) as server:
        (tmp_path / "2").mkdir()
        wait_until(lambda: statuses(server).get(2) == ("END", "NOT_FOUND"))
        half_plus_two_versions(tmp_path / "other", 2)
        (tmp_path / "2").rmdir()
        time.sleep(10 * QUICK.poll_seconds)
        (tmp_path / "other" / "2").rename(tmp_path / "2")

        wait_until(lambda: answer_of(server) == 2.0)


@pytest.mark.parametrize("damage", ["gone", "truncated"])
def test_a_version_without_its_variables_never_takes_over(tmp_path, half_plus_two_versions, damage):
    half_plus_two_versions(tmp_path, 1)
    half_plus_two_versions(tmp_path / "other", 2)
    variables = tmp_path / "other" / "2" / "variables"
    if damage == "gone":
        shutil.rmtree(variables)
    else:
        (variables / "variables.data-00000-of-00001").write_bytes(b"\0")

    with serving(tmp_path) as server:
        (tmp_path / "other" / "2").rename(tmp_path / "2")
        wait_until(lambda: statuses(server).get(2, ("", ""))[0] == "END")

        assert statuses(server)[2][1] != "OK"
        assert answer_of(server) == 1.0


def test_the_ports_open_when_a_version_appears(tmp_path, half_plus_two_versions):
    ready = threading.Event()
    stop = threading.Event()

    def serve() -> None:
        with serving(tmp_path) as server:
            assert answer_of(server) == 1.0
            ready.set()
            stop.wait(PATIENCE_SECONDS)

    thread = threading.Thread(target=serve)
    thread.start()
    assert not ready.wait(0.5)
    half_plus_two_versions(tmp_path, 1)
    assert ready.wait(PATIENCE_SECONDS)
    stop.set()
    thread.join()


def test_the_ports_open_when_the_only_version_has_failed_for_good(tmp_path):
    (tmp_path / "1").mkdir()

    with serving(tmp_path) as server:
        assert statuses(server) == {1: ("END", "NOT_FOUND")}
        assert answer_of(server) == "Servable not found for request: Latest(m)"


@pytest.mark.parametrize("wait", [False, True])
def test_the_ports_open_after_the_first_try_unless_they_are_to_wait_for_the_last(
    tmp_path, half_plus_two_versions, wait
):
    """The first try fails, the second, a while later, does not."""
    (tmp_path / "models" / "1").mkdir(parents=True)
    half_plus_two_versions(tmp_path / "copied", 1)
    patient = replace(QUICK, load_retry_seconds=1.0, wait_for_models=wait)
    copying = threading.Timer(
        0.5, lambda: shutil.copytree(tmp_path / "copied", tmp_path / "models", dirs_exist_ok=True)
    )
    copying.start()

    with serving(tmp_path / "models", patient) as server:
        assert statuses(server) == {1: ("AVAILABLE", "OK") if wait else ("END", "NOT_FOUND")}
        with RestClient(port=server.rest_port) as client:
            assert wait or "does not appear to contain a SavedModel" in client.status("m")[0].message
        wait_until(lambda: answer_of(server) == 1.0)
    copying.join()


def write_warm_up(version_path: Path, name: str) -> None:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.name = "m"
    log.predict_log.request.inputs[name].CopyFrom(tf.make_tensor_proto([1.0]))
    (version_path / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(version_path / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        writer.write(log.SerializeToString())


@pytest.mark.parametrize(
    ("name", "status"), [("x", ("AVAILABLE", "OK")), ("no_such_input", ("END", "INVALID_ARGUMENT"))]
)
def test_warm_up_requests_are_replayed_before_a_version_is_available(tmp_path, half_plus_two_versions, name, status):
    half_plus_two_versions(tmp_path, 1)
    write_warm_up(tmp_path / "1", name)

    with serving(tmp_path) as server:
        assert statuses(server) == {1: status}


def test_without_warm_up_the_requests_of_a_version_are_not_looked_at(tmp_path, half_plus_two_versions):
    half_plus_two_versions(tmp_path, 1)
    write_warm_up(tmp_path / "1", "no_such_input")
    with serving(tmp_path, replace(QUICK, warm_up=False)) as server:
        assert statuses(server) == {1: ("AVAILABLE", "OK")}


def test_two_models_are_served_side_by_side(tmp_path, half_plus_two_versions):
    half_plus_two_versions(tmp_path / "a", 1)
    half_plus_two_versions(tmp_path / "b", 2)
    models = {"one": str(tmp_path / "a"), "two": str(tmp_path / "b")}

    with (
        EmbeddedServer(models, QUICK_OPTIONS) as server,
        RestClient(port=server.rest_port) as client,
    ):
        assert client.predict("one", {"x": [0.0]}) == {"y": [1.0]}
        assert client.predict("two", {"x": [0.0]}) == {"y": [2.0]}
        (tmp_path / "a" / "1").rename(tmp_path / "a" / "gone-1")
        wait_until(lambda: client.status("one")[0].state == "END")
        assert client.predict("two", {"x": [0.0]}) == {"y": [2.0]}


EXAMPLE = 'example_list { examples { features { feature { key: "%s" value { float_list { value: 2 } } } } } }'
CLASSIFY = 'classify_log { request { model_spec { name: "m" signature_name: "classify_x_to_y" } input { %s } } }'
REGRESS = 'regress_log { request { model_spec { name: "m" signature_name: "regress_x_to_y" } input { %s } } }'
BOTH = (
    "multi_inference_log { request { "
    'tasks { model_spec { name: "m" signature_name: "regress_x_to_y" } method_name: "tensorflow/serving/regress" } '
    'tasks { model_spec { name: "m" signature_name: "classify_x_to_y" } method_name: "tensorflow/serving/classify" } '
    "input { %s } } }"
)


def write_warm_up_logs(version: Path, *logs: str) -> None:
    (version / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(version / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        for log in logs:
            writer.write(text_format.Parse(log, prediction_log_pb2.PredictionLog()).SerializeToString())


@pytest.mark.parametrize("kind", [CLASSIFY, REGRESS, BOTH])
@pytest.mark.parametrize(
    ("feature", "status"), [("x", ("AVAILABLE", "OK")), ("no_such_feature", ("END", "INVALID_ARGUMENT"))]
)
def test_requests_on_examples_are_replayed(tmp_path, kind, feature, status):
    save_examples(tmp_path / "1")
    write_warm_up_logs(tmp_path / "1", kind % (EXAMPLE % feature))

    with serving(tmp_path) as server:
        assert statuses(server) == {1: status}


@pytest.mark.parametrize(
    ("log", "status"),
    [
        (CLASSIFY.replace("classify_x_to_y", "nobody") % (EXAMPLE % "x"), ("END", "FAILED_PRECONDITION")),
        (CLASSIFY.replace("classify_x_to_y", "regress_x_to_y") % (EXAMPLE % "x"), ("END", "INVALID_ARGUMENT")),
        (REGRESS % "", ("END", "INVALID_ARGUMENT")),
        ("session_run_log { }", ("END", "UNIMPLEMENTED")),
        ("", ("AVAILABLE", "OK")),
    ],
)
def test_records_that_cannot_be_replayed_keep_the_version_from_being_available(tmp_path, log, status):
    save_examples(tmp_path / "1")
    write_warm_up_logs(tmp_path / "1", CLASSIFY % (EXAMPLE % "x"), log)

    with serving(tmp_path) as server:
        assert statuses(server) == {1: status}


def test_more_than_a_thousand_records_are_refused(tmp_path):
    save_examples(tmp_path / "1")
    write_warm_up_logs(tmp_path / "1", *[""] * 1001)

    with serving(tmp_path) as server:
        assert statuses(server) == {1: ("END", "INVALID_ARGUMENT")}


@pytest.fixture
def sign(tmp_path, half_plus_two_versions):
    """Publishes y = x / 2 + N, signed, as the next version."""
    make_key(tmp_path / "key.pem")

    def publish_signed(addend: int) -> Path:
        half_plus_two_versions(tmp_path / "models", addend)
        provenance = {"data_fingerprint": f"{addend}", "code_fingerprint": "c"}
        key = read_signing_key(tmp_path / "key.pem")
        return Path(publish(str(tmp_path / "m"), str(tmp_path / "models" / str(addend)), provenance, key=key).path)

    return publish_signed


@pytest.fixture
def requiring(tmp_path, sign, monkeypatch) -> LoadPolicy:
    """Serves what `sign` publishes, and nothing else; its copies go to a folder of their own."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    make_key(tmp_path / "another.pem")
    files = [tmp_path / "another.pem.pub", tmp_path / "key.pem.pub"]
    return replace(QUICK, load_retries=0, signature_keys=tuple(read_public_key(file) for file in files))


def copies(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "temporary").glob("ingraph-version-*"))


def test_versions_are_served_only_as_the_holder_of_the_key_has_published_them(
    tmp_path, sign, requiring, half_plus_two_versions, caplog
):
    base = tmp_path / "m"
    sign(10)
    with caplog.at_level(logging.ERROR), serving(base, requiring) as server:
        assert answer_of(server) == 10.0
        half_plus_two_versions(tmp_path / "models", 20)
        shutil.copytree(tmp_path / "models/20", base / "2")  # by anybody
        wait_until(lambda: statuses(server).get(2) == ("END", "PERMISSION_DENIED"))
        with RestClient(port=server.rest_port) as client:
            (status,) = (status for status in client.status("m") if status.version == 2)
        assert status.message.startswith("m/2 is not signed, it has no assets.extra/SHA256SUMS: publish the model")
        assert f"m version 2 cannot be loaded: {base}/2 is not signed" in caplog.text
        assert sign(30).name == "3"
        wait_until(lambda: answer_of(server) == 30.0)
        forged = tmp_path / "4"
        shutil.copytree(base / "3", forged)
        shutil.copytree(tmp_path / "models/20/variables", forged / "variables", dirs_exist_ok=True)
        forged.rename(base / "4")
        wait_until(lambda: statuses(server).get(4) == ("END", "PERMISSION_DENIED"))
        assert "m/4 was changed after it was signed: not as they were signed: variables/" in caplog.text
        assert answer_of(server) == 30.0
        assert statuses(server)[3] == ("AVAILABLE", "OK")
        wait_until(lambda: len(copies(tmp_path)) == 1)
    assert copies(tmp_path) == []


def test_what_changes_after_it_was_verified_is_not_loaded(
    tmp_path, sign, requiring, half_plus_two_versions, monkeypatch
):
    half_plus_two_versions(tmp_path / "models", 20)
    verified = versions.verify_signature

    def verify_and_be_too_slow(path, *arguments):
        key = verified(path, *arguments)
        shutil.copytree(tmp_path / "models/20", path, dirs_exist_ok=True)
        return key

    monkeypatch.setattr(versions, "verify_signature", verify_and_be_too_slow)
    sign(10)
    with serving(tmp_path / "m", requiring) as server:
        assert answer_of(server) == 10.0


def test_a_signed_version_that_does_not_load_is_named_by_its_own_path_and_leaves_no_copy(tmp_path, sign, requiring):
    key = read_signing_key(tmp_path / "key.pem")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/saved_model.pb").write_bytes(b"no graph")
    publish(str(tmp_path / "m"), str(tmp_path / "broken"), {"data_fingerprint": "d", "code_fingerprint": "c"}, key=key)
    with serving(tmp_path / "m", requiring) as server, RestClient(port=server.rest_port) as client:
        (status,) = client.status("m")
        assert (status.state, status.code.name) == ("END", "DATA_LOSS")
        assert "m/1" in status.message and "temporary" not in status.message
        assert copies(tmp_path) == []
