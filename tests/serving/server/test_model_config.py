"""Models, version policies and labels from a model config, by file and by gRPC."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import (
    model_management_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving import model_store
from serving.server.app import EmbeddedServer
from serving.server.config import ConfigFileError
from serving.server.errors import ServingError
from serving.server.grpc import may_reload
from serving.server.options import ReloadOptions, ServerOptions
from tests.serving.server.conftest import QUICK_OPTIONS, Rest
from tests.serving.server.test_versions import wait_until

POLLED = replace(QUICK_OPTIONS, model_config_file_poll_seconds=0.05)


def model(base_path: Path, name: str = "m", policy: str = "", **labels: int) -> str:
    """One model of a ModelServerConfig, as text."""
    labelled = " ".join(f'version_labels {{ key: "{label}" value: {number} }}' for label, number in labels.items())
    return (
        f'config {{ name: "{name}" base_path: "{base_path}" model_platform: "tensorflow" {labelled} '
        f"model_version_policy {{ {policy} }} }}"
    )


def write_config(path: Path, *models: str) -> str:
    path.write_text(f"model_config_list {{ {' '.join(models)} }}")
    return str(path)


@contextmanager
def serving(config: Path, options=QUICK_OPTIONS) -> Iterator[EmbeddedServer]:
    with EmbeddedServer({}, replace(options, model_config_file=str(config))) as server:
        yield server


def available(server: EmbeddedServer, name: str = "m") -> list[int]:
    answer = Rest(server.rest_port).call("GET", f"/v1/models/{name}")
    states = answer.json.get("model_version_status", [])
    return sorted(int(version["version"]) for version in states if version["state"] == "AVAILABLE")


def answer_to(server: EmbeddedServer, path: str) -> float | str:
    """What x = 0 is answered with, which is the version's number; or the error."""
    answer = Rest(server.rest_port).call("POST", f"/v1/models/{path}:predict", {"instances": [0.0]})
    return answer.json["predictions"][0] if answer.status == 200 else f"{answer.status} {answer.error}"


@pytest.fixture
def versions(tmp_path, half_plus_two_versions) -> Path:
    for number in (1, 2, 3, 4):
        half_plus_two_versions(tmp_path / "models", number)
    return tmp_path / "models"


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("", [4]),
        ("latest { num_versions: 2 }", [3, 4]),
        ("latest { }", [4]),
        ("all { }", [1, 2, 3, 4]),
        ("specific { versions: 1 versions: 3 versions: 9 }", [1, 3]),
    ],
)
def test_the_version_policy_says_which_versions_are_served_at_once(tmp_path, versions, policy, served):
    config = tmp_path / "models.config"
    write_config(config, model(versions, policy=policy))

    with serving(config) as server:
        assert available(server) == served
        assert [answer_to(server, f"m/versions/{number}") for number in served] == served
        assert answer_to(server, "m") == served[-1]
        for number in {1, 2, 3, 4} - set(served):
            expected = f"404 Servable not found for request: Specific(m, {number})"
            assert answer_to(server, f"m/versions/{number}") == expected


def test_a_policy_of_all_takes_up_new_versions_and_keeps_the_old(tmp_path, versions, half_plus_two_versions):
    config = tmp_path / "models.config"
    write_config(config, model(versions, policy="all { }"))

    with serving(config) as server:
        half_plus_two_versions(versions, 5)
        wait_until(lambda: available(server) == [1, 2, 3, 4, 5])


def test_labels_of_a_config_are_asked_for_over_rest_and_grpc(tmp_path, versions):
    config = tmp_path / "models.config"
    write_config(config, model(versions, policy="all { }", stable=2, canary=4))

    with (
        serving(config, replace(QUICK_OPTIONS, labels_may_wait=True)) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        assert answer_to(server, "m/labels/stable") == 2.0
        assert answer_to(server, "m/labels/canary") == 4.0
        metadata = Rest(server.rest_port).call("GET", "/v1/models/m/labels/stable/metadata").json
        assert metadata["model_spec"]["version"] == "2"
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = predict_pb2.PredictRequest(model_spec=model_pb2.ModelSpec(name="m", version_label="stable"))
        request.inputs["x"].CopyFrom(tf.make_tensor_proto([0.0]))
        assert stub.Predict(request).outputs["y"].float_val == [2.0]
        assert stub.Predict(request).model_spec.version.value == 2
        assert answer_to(server, "m/labels/nope") == "400 Unrecognized servable version label: nope"
        request.model_spec.version_label = "nope"
        with pytest.raises(grpc.RpcError) as refused:
            stub.Predict(request)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert refused.value.details() == "Unrecognized servable version label: nope"


def test_a_label_at_the_start_needs_the_flag_for_versions_that_are_not_available_yet(tmp_path, versions):
    config = tmp_path / "models.config"
    write_config(config, model(versions, stable=4))

    with pytest.raises(ServingError, match="version 4 of model m, which is not currently available"), serving(config):
        pass


def test_a_changed_config_file_moves_labels_and_adds_and_removes_models(tmp_path, versions, half_plus_two_versions):
    half_plus_two_versions(tmp_path / "others", 7)
    config = tmp_path / "models.config"
    write_config(config, model(versions, policy="specific { versions: 1 }"))

    with serving(config, POLLED) as server:
        write_config(config, model(versions, policy="specific { versions: 1 versions: 2 }"))
        wait_until(lambda: available(server) == [1, 2])
        write_config(config, model(versions, policy="all {}", stable=1, canary=2), model(tmp_path / "others", "other"))
        wait_until(lambda: answer_to(server, "other") == 7.0)
        assert answer_to(server, "m/labels/canary") == 2.0
        write_config(config, model(tmp_path / "others", "other"))
        wait_until(lambda: answer_to(server, "m") == "404 Servable not found for request: Latest(m)")
        assert answer_to(server, "m/labels/canary") == "400 Unrecognized servable version label: canary"
        assert answer_to(server, "other") == 7.0
        write_config(config, model(versions), model(tmp_path / "others", "other"))
        wait_until(lambda: answer_to(server, "m") == 4.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model_config_list { config {", "Error parsing text-format tensorflow.serving.ModelServerConfig"),
        ("\0\1\2", "Error parsing text-format tensorflow.serving.ModelServerConfig"),
        ('model_config_list { config { name: "m" base_path: "/m" } }', "Illegal setting neither"),
        (
            'model_config_list { config { name: "m" base_path: "/m" model_platform: "tensorflow" '
            "model_type: TENSORFLOW } }",
            "Illegal setting both",
        ),
        ('model_config_list { config { name: "m" base_path: "/m" model_platform: "x" } }', "must have model_platform"),
        (
            'model_config_list { config { name: "m" base_path: "m" model_platform: "tensorflow" } }',
            "Expected model m to have an absolute path or URI; got base_path()=m",
        ),
        (
            'model_config_list { config { name: "m" base_path: "/m" model_platform: "tensorflow" } '
            'config { name: "m" base_path: "/m" model_platform: "tensorflow" } }',
            "Illegal to list model m multiple times in config list",
        ),
    ],
)
def test_a_broken_config_file_stops_the_start_and_later_changes_nothing(tmp_path, versions, caplog, content, message):
    config = tmp_path / "models.config"
    write_config(config, model(versions))
    with serving(config, POLLED) as server:
        config.write_text(content)
        wait_until(lambda: message in caplog.text)
        assert answer_to(server, "m") == 4.0
        config.unlink()
        wait_until(lambda: "cannot be read: No such file or directory" in caplog.text)
        write_config(config, model(versions, policy="specific { versions: 2 }"))
        wait_until(lambda: answer_to(server, "m") == 2.0)

    config.write_text(content)
    with pytest.raises(ConfigFileError, match="models\\.config") as stopped, serving(config):
        pass
    assert message in str(stopped.value)


def test_an_empty_config_file_is_no_config(tmp_path, versions, caplog):
    config = tmp_path / "models.config"
    write_config(config, model(versions))
    with serving(config, POLLED) as server:
        config.write_text("")
        wait_until(lambda: "It is only legal to transition from one ModelConfigList to another" in caplog.text)
        assert answer_to(server, "m") == 4.0
        config.write_text("model_config_list {}")
        wait_until(lambda: answer_to(server, "m") == "404 Servable not found for request: Latest(m)")


def test_a_config_file_may_be_empty_at_the_start_and_filled_later(tmp_path, versions, caplog):
    config = tmp_path / "models.config"
    config.write_text("")
    with serving(config, POLLED) as server:
        assert answer_to(server, "m") == "404 Servable not found for request: Latest(m)"
        time.sleep(5 * POLLED.model_config_file_poll_seconds)
        write_config(config, model(versions))
        wait_until(lambda: answer_to(server, "m") == 4.0)
    assert "Cannot transition" not in caplog.text


def reload(server: EmbeddedServer, *models: str) -> grpc.StatusCode | str:
    request = model_management_pb2.ReloadConfigRequest()
    text_format.Parse(f"model_config_list {{ {' '.join(models)} }}", request.config)
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        try:
            response = model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest(request, timeout=30)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
    assert response.status.error_code == 0
    return "OK"


def reloadable(root: Path) -> ServerOptions:
    return replace(QUICK_OPTIONS, reload=ReloadOptions((str(root),)))


def test_a_config_by_grpc_replaces_the_models_and_is_answered_when_new_ones_are_available(tmp_path, versions):
    with EmbeddedServer({"first": str(versions)}, reloadable(tmp_path)) as server:
        assert reload(server, model(versions, "second", "specific { versions: 3 versions: 1 }")) == "OK"
        assert available(server, "second") == [1, 3]
        assert answer_to(server, "first") == "404 Servable not found for request: Latest(first)"
        assert reload(server, model(versions, "second", "all { }", stable=1)) == "OK"
        assert answer_to(server, "second/labels/stable") == 1.0


def test_a_config_by_grpc_that_gives_a_label_to_what_is_not_available_is_refused_as_a_whole(tmp_path, versions):
    with EmbeddedServer({"m": str(versions)}, reloadable(tmp_path)) as server:
        answer = reload(server, model(versions, policy="all { }", stable=2), model(versions, "second"))

        assert answer == (
            "FAILED_PRECONDITION: Request to assign label to version 2 of model m, which is not currently available "
            "for inference"
        )
        assert available(server) == [4]
        assert answer_to(server, "second") == "404 Servable not found for request: Latest(second)"


def test_a_config_by_grpc_with_a_model_that_fails_to_load_says_so_and_serves_the_others(tmp_path, versions):
    (tmp_path / "broken" / "1").mkdir(parents=True)
    with EmbeddedServer({"m": str(versions)}, reloadable(tmp_path)) as server:
        answer = reload(server, model(versions), model(tmp_path / "broken", "broken"))

        assert answer.startswith(
            "UNKNOWN: 1 model(s) did not become available: {{{name: broken version: 1} due to error: "
        )
        assert str(tmp_path) not in answer
        assert answer_to(server, "m") == 4.0


def test_no_client_changes_what_is_served_unless_the_server_is_told_so(tmp_path, versions):
    with EmbeddedServer({"m": str(versions)}, QUICK_OPTIONS) as server:
        for models in ([], [model(versions, "second")], [model("/etc", "etc")]):
            assert reload(server, *models) == (
                "PERMISSION_DENIED: This server takes no config from clients: start it with --allow-reload-config ROOT."
            )
        assert answer_to(server, "m") == 4.0


def logged_to(prefix: str) -> str:
    collector = f'log_collector_config {{ filename_prefix: "{prefix}" }}'
    return f"logging_config {{ {collector} sampling_config {{ sampling_rate: 1 }} }}"


def test_a_config_by_grpc_reaches_nothing_beyond_its_roots(tmp_path, versions, half_plus_two_versions):
    """Neither by a path with dots, nor by a link, nor by a version that is a link, nor by a request log."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    half_plus_two_versions(root / "m", 1)
    half_plus_two_versions(outside, 7)
    (root / "link").symlink_to(outside)
    (root / "inner").mkdir()
    (root / "inner" / "7").symlink_to(outside / "7")
    log = str(outside / "log")
    with_log = model(root / "m").replace("config {", f"config {{ {logged_to(log)}", 1)

    with EmbeddedServer({"m": str(root / "m")}, reloadable(root)) as server:
        for refused in (model(outside), model(f"{root}/../outside"), model(root / "link"), model(f"file://{outside}")):
            assert reload(server, refused).startswith("PERMISSION_DENIED: The base path of model m lies outside")
        assert reload(server, with_log).startswith("PERMISSION_DENIED: The request log of model m lies outside")
        linked = reload(server, model(root / "m"), model(root / "inner", "linked"))
        assert "lies outside of what --allow-reload-config names" in linked
        assert answer_to(server, "linked") == "404 Servable not found for request: Latest(linked)"
        assert answer_to(server, "m") == 1.0
        assert (
            reload(server, model(root / "m").replace("config {", f"config {{ {logged_to(str(root / 'log'))}", 1))
            == "OK"
        )
        assert answer_to(server, "m") == 1.0
    assert not list(outside.glob("log*"))
    assert len(list(root.glob("log-*.tfrecord"))) == 1


@pytest.mark.parametrize(
    ("peer", "mutual_tls", "from_anywhere", "allowed"),
    [
        ("ipv4:127.0.0.1:50000", False, False, True),
        ("ipv6:%5B::1%5D:50000", False, False, True),
        ("ipv6:[::ffff:127.0.0.1]:50000", False, False, True),
        ("unix:/run/socket", False, False, True),
        ("ipv4:10.0.0.7:50000", False, False, False),
        ("ipv6:[::ffff:10.0.0.7]:50000", False, False, False),
        ("ipv6:[2001:db8::1]:127", False, False, False),
        ("", False, False, False),
        ("ipv4:10.0.0.7:50000", True, False, True),
        ("ipv4:10.0.0.7:50000", False, True, True),
    ],
)
def test_a_config_comes_from_this_machine_or_with_a_certificate_unless_told_otherwise(
    peer, mutual_tls, from_anywhere, allowed
):
    options = ReloadOptions(("/models",), from_anywhere)
    if allowed:
        may_reload(options, mutual_tls, peer)
    else:
        with pytest.raises(ServingError, match="from its own machine") as raised:
            may_reload(options, mutual_tls, peer)
        assert raised.value.code.name == "PERMISSION_DENIED"


def test_labels_in_the_base_path_are_followed_and_keep_their_versions_loaded(
    tmp_path, versions, half_plus_two_versions
):
    base_path = str(versions)
    model_store.label(base_path, "stable", 2)
    model_store.label(base_path, "canary", 4)

    with EmbeddedServer({"m": base_path}, QUICK_OPTIONS) as server:
        assert available(server) == [2, 4]
        assert (answer_to(server, "m/labels/stable"), answer_to(server, "m/labels/canary")) == (2.0, 4.0)
        half_plus_two_versions(versions, 5)
        wait_until(lambda: answer_to(server, "m") == 5.0)
        assert available(server) == [2, 4, 5]
        model_store.promote(base_path)
        wait_until(lambda: answer_to(server, "m/labels/stable") == 4.0)
        wait_until(lambda: available(server) == [4, 5])
        model_store.unlabel(base_path, "canary")
        wait_until(lambda: answer_to(server, "m/labels/canary") == "400 Unrecognized servable version label: canary")


def test_a_label_that_is_moved_never_fails_a_request(tmp_path, versions):
    model_store.label(str(versions), "stable", 1)
    seen: list[float | str] = []
    done = threading.Event()

    with EmbeddedServer({"m": str(versions)}, QUICK_OPTIONS) as server:

        def ask() -> None:
            while not done.is_set():
                seen.append(answer_to(server, "m/labels/stable"))

        thread = threading.Thread(target=ask)
        thread.start()
        for number in (2, 3, 1):
            model_store.label(str(versions), "stable", number)
            wait_until(lambda number=number: bool(seen) and seen[-1] == number)
        done.set()
        thread.join()
    assert set(seen) == {1.0, 2.0, 3.0}


def test_a_label_of_a_version_that_cannot_be_loaded_stays_where_it_was(tmp_path, versions):
    (versions / "3" / "saved_model.pb").write_bytes(b"noise")
    model_store.label(str(versions), "stable", 1)
    with EmbeddedServer({"m": str(versions)}, QUICK_OPTIONS) as server:
        model_store.label(str(versions), "stable", 3)
        wait_until(lambda: "END" in [state for number, state in states(server) if number == 3])

        assert answer_to(server, "m/labels/stable") == 1.0


def states(server: EmbeddedServer) -> list[tuple[int, str]]:
    answer = Rest(server.rest_port).call("GET", "/v1/models/m").json
    return [(int(version["version"]), version["state"]) for version in answer["model_version_status"]]


@pytest.mark.parametrize("content", ["{", ""])
def test_a_damaged_label_file_changes_nothing(tmp_path, versions, caplog, content):
    model_store.label(str(versions), "stable", 2)
    with EmbeddedServer({"m": str(versions)}, QUICK_OPTIONS) as server:
        (versions / ".labels.json").write_text(content)
        wait_until(lambda: "must hold a JSON object of labels" in caplog.text)

        assert answer_to(server, "m/labels/stable") == 2.0
