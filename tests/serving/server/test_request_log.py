"""Request logs: what is in them, what they cost, and that no answer depends on them."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2, prediction_service_pb2_grpc

from serving.client.errors import CanonicalCode
from serving.client.grpc import GrpcClient
from serving.client.tensors import from_proto
from serving.server import request_log
from serving.server.app import EmbeddedServer
from serving.server.config import ConfigFileError, RequestLogOptions
from serving.server.request_log import RequestLog
from tests.serving.server.conftest import QUICK_OPTIONS, Rest
from tests.serving.server.test_classify_and_regress import CLASSIFY, REGRESS, tasks
from tests.serving.server.test_metrics import PATH

LOGGED = ':tensorflow:serving:request_log_count{model_name="greeting",status_code="%s"} %d'
WORLD = {"inputs": {"text": ["world", ""]}}


@contextmanager
def serving(models: dict[str, str], prefix: Path, rate: float = 1.0, **options) -> Iterator[EmbeddedServer]:
    log = RequestLogOptions(str(prefix), rate)
    with EmbeddedServer(models, replace(QUICK_OPTIONS, request_log=log, metrics_path=PATH, **options)) as server:
        yield server


@pytest.fixture
def greeting(base_paths: dict[str, str]) -> dict[str, str]:
    return {"greeting": base_paths["greeting"]}


def files(prefix: Path) -> list[Path]:
    return sorted(prefix.parent.glob(f"{prefix.name}-*.tfrecord"))


def logs(prefix: Path) -> list[prediction_log_pb2.PredictionLog]:
    records = [record for path in files(prefix) for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]
    return [prediction_log_pb2.PredictionLog.FromString(record) for record in records]


def strings(tensors, name: str) -> list[bytes]:
    return from_proto(tensors[name]).tolist()


@pytest.mark.parametrize("entrypoint", ["REST", "gRPC"])
def test_a_prediction_is_logged_with_its_answer_and_what_has_answered(greeting, tmp_path, entrypoint):
    prefix = tmp_path / "made" / "greeting"
    with serving(greeting, prefix) as server:
        if entrypoint == "REST":
            assert Rest(server.rest_port).predict("greeting", WORLD).json == {"outputs": ["hello world", "hello "]}
        else:
            with GrpcClient(port=server.grpc_port) as client:
                client.predict("greeting", {"text": ["world", ""]})

    (log,) = logs(prefix)
    assert log.predict_log.request.model_spec.name == "greeting"
    assert strings(log.predict_log.request.inputs, "text") == [b"world", b""]
    assert strings(log.predict_log.response.outputs, "output_0") == [b"hello world", b"hello "]
    spec = log.log_metadata.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("greeting", 1, "serving_default")
    assert log.predict_log.response.model_spec == spec
    assert log.log_metadata.sampling_config.sampling_rate == 1.0
    assert list(log.log_metadata.saved_model_tags) == ["serve"]
    assert log.log_metadata.timestamp_secs > 1_700_000_000
    (file,) = files(prefix)
    assert file.stat().st_mode & 0o777 == 0o600


def test_every_kind_of_inference_is_logged_and_what_was_refused_is_not(base_paths, tmp_path):
    prefix = tmp_path / "examples"
    with serving({"examples": base_paths["examples"]}, prefix) as server:
        rest = Rest(server.rest_port)
        for verb, signature in (("classify", "classify_both"), ("regress", "regress_x_to_y"), ("classify", "none")):
            rest.call("POST", f"/v1/models/examples:{verb}", {"signature_name": signature, "examples": [{"x": 20.0}]})
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            stub.MultiInference(
                tasks(("examples", "regress_x_to_y", REGRESS), ("examples", "classify_both", CLASSIFY)), timeout=30
            )

    classified, regressed, both = logs(prefix)
    (example,) = classified.classify_log.request.input.example_list.examples
    assert list(example.features.feature["x"].float_list.value) == [20.0]
    (classes,) = classified.classify_log.response.result.classifications
    assert [(entry.label, entry.score) for entry in classes.classes] == [("above", 12.0), ("above", 3.0)]
    assert classified.log_metadata.model_spec.signature_name == "classify_both"
    assert regressed.regress_log.response.result.regressions[0].value == 12.0
    assert [result.model_spec.signature_name for result in both.multi_inference_log.response.results] == [
        "regress_x_to_y",
        "classify_both",
    ]


def test_about_the_share_of_requests_that_was_asked_for_is_logged(greeting, tmp_path):
    prefix = tmp_path / "greeting"
    with serving(greeting, prefix, rate=0.25) as server, GrpcClient(port=server.grpc_port) as client:
        for number in range(400):
            client.predict("greeting", {"text": [str(number)]})

    sampled = [int(strings(log.predict_log.request.inputs, "text")[0]) for log in logs(prefix)]
    assert 45 <= len(sampled) <= 155  # 100, within six standard deviations
    assert sampled == sorted(set(sampled))
    assert logs(prefix)[0].log_metadata.sampling_config.sampling_rate == 0.25


def config(path: Path, base_paths: dict[str, str], logging_config: str) -> str:
    model = 'model_platform: "tensorflow"'
    path.write_text(
        f'model_config_list {{ config {{ name: "greeting" base_path: "{base_paths["greeting"]}" {model} '
        f'logging_config {{ {logging_config} }} }} config {{ name: "other" base_path: "{base_paths["greeting"]}" '
        f"{model} }} }}"
    )
    return str(path)


@pytest.mark.parametrize(("sampling", "logged"), [("sampling_config { sampling_rate: 1 }", 1), ("", 0)])
def test_a_model_config_file_says_which_models_are_logged(base_paths, tmp_path, sampling, logged):
    prefix = tmp_path / "log" / "r"
    collector = f'log_collector_config {{ type: "tfrecord" filename_prefix: "{prefix}" }}'
    file = config(tmp_path / "models.config", base_paths, collector + sampling)
    with EmbeddedServer({}, replace(QUICK_OPTIONS, model_config_file=file)) as server:
        for model in ("greeting", "other"):
            assert Rest(server.rest_port).predict(model, WORLD).status == 200

    assert [log.log_metadata.model_spec.name for log in logs(prefix)] == ["greeting"] * logged


@pytest.mark.parametrize(
    ("logging_config", "message"),
    [
        (
            'log_collector_config { type: "kafka" filename_prefix: "/logs" }',
            'Cannot find LogCollector::Factory for type: kafka; this server has "tfrecord" only',
        ),
        (
            "sampling_config { sampling_rate: 1 }",
            "expected how file names in a local file system begin, such as logs/heart, received ''",
        ),
        ('log_collector_config { filename_prefix: "gs://b/l" }', "received 'gs://b/l'"),
        (
            'log_collector_config { filename_prefix: "/l" } sampling_config { sampling_rate: 1.5 }',
            "expected a sampling rate from 0 to 1, received 1.5",
        ),
        (
            'log_collector_config { filename_prefix: "/l" } sampling_config { attributes: 1 }',
            "attributes and custom_logging_config are not supported",
        ),
    ],
)
def test_a_logging_config_that_cannot_be_is_refused_at_the_start(base_paths, tmp_path, logging_config, message):
    file = config(tmp_path / "models.config", base_paths, logging_config)
    with pytest.raises(ConfigFileError, match="logging_config of model greeting: ") as refused:
        EmbeddedServer({}, replace(QUICK_OPTIONS, model_config_file=file))
    assert message in str(refused.value)


# What goes wrong with the log.


def metrics_when(rest: Rest, line: str) -> None:
    """Wait until the metrics have that line."""
    for _ in range(500):
        shown = rest.call("GET", PATH).text
        if line in shown.splitlines():
            return
    pytest.fail(f"{line} is not in {shown}")


def test_a_log_that_cannot_be_written_is_said_once_and_counted_and_answers_do_not_change(greeting, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING), serving(greeting, tmp_path / "file" / "log") as server:
        rest = Rest(server.rest_port)
        for _ in range(5):
            assert rest.predict("greeting", WORLD).json == {"outputs": ["hello world", "hello "]}
        metrics_when(rest, LOGGED % ("UNAVAILABLE", 5))

    (said,) = [record.getMessage() for record in caplog.records if "request log" in record.getMessage()]
    assert said.startswith(f"the request log {tmp_path}/file/log cannot be written: ")


def test_a_full_disk_disturbs_no_answer_and_the_log_goes_on_when_there_is_room(greeting, tmp_path, monkeypatch):
    monkeypatch.setattr(request_log, "RETRY_SECONDS", 0.0)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    try:
        filler = tmp_path / "filler"
        with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with serving(greeting, tmp_path / "log") as server:
            rest = Rest(server.rest_port)
            for _ in range(3):
                assert rest.predict("greeting", WORLD).status == 200
            metrics_when(rest, LOGGED % ("UNAVAILABLE", 3))
            assert files(tmp_path / "log") == []
            filler.unlink()
            assert rest.predict("greeting", WORLD).status == 200
            metrics_when(rest, LOGGED % ("OK", 1))
        assert len(logs(tmp_path / "log")) == 1
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def test_what_does_not_fit_into_memory_is_not_logged_but_counted(greeting, tmp_path, monkeypatch):
    monkeypatch.setattr(request_log, "WAITING_BYTES", 10_000)
    with serving(greeting, tmp_path / "log") as server:
        rest = Rest(server.rest_port)
        assert rest.predict("greeting", {"inputs": ["x" * 20_000]}).status == 200
        assert rest.predict("greeting", WORLD).status == 200
        metrics_when(rest, LOGGED % ("RESOURCE_EXHAUSTED", 1))

    (log,) = logs(tmp_path / "log")
    assert strings(log.predict_log.request.inputs, "text") == [b"world", b""]


def test_a_large_file_is_followed_by_another_and_the_oldest_ones_go(tmp_path, monkeypatch):
    monkeypatch.setattr(request_log, "MAXIMUM_FILE_BYTES", 1000)
    monkeypatch.setattr(request_log, "KEPT_BYTES", 5000)
    strangers = [tmp_path / "log-notes.tfrecord", tmp_path / "logs-20260101-000000-1-00000.tfrecord"]
    for stranger in strangers:
        stranger.write_bytes(bytes(10_000))
    log = RequestLog(str(tmp_path / "log"))
    for number in range(40):
        assert log.append(number.to_bytes(2) * 200) is CanonicalCode.OK
    log.close()

    kept = [path for path in files(tmp_path / "log") if path not in strangers]
    records = [record for path in kept for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]
    assert [int.from_bytes(record[:2]) for record in records] == [*range(30, 40)]
    assert len(kept) == 4
    assert all(stranger.exists() for stranger in strangers)


def test_an_old_file_is_followed_by_another(tmp_path, monkeypatch):
    monkeypatch.setattr(request_log, "MAXIMUM_FILE_SECONDS", 0.0)
    log = RequestLog(str(tmp_path / "log"))
    for _ in range(3):
        log.append(b"a request")
    log.close()

    assert len(files(tmp_path / "log")) == 3
