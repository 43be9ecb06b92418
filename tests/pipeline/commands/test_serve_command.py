"""`ingraph serve`."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from pipeline.cli import main
from serving.client.grpc import GrpcClient
from serving.client.rest import RestClient
from serving.model_store import label, promote, publish
from serving.session_model import SessionModel
from tests.serving.server import small_models

READY = re.compile(
    r"serving (?P<models>.+): REST on http://127\.0\.0\.1:(?P<rest>\d+), gRPC on 127\.0\.0\.1:(?P<grpc>\d+)"
)


@contextmanager
def serving(*arguments: str, stderr: Path) -> Iterator[subprocess.Popen[str]]:
    with stderr.open("w") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("ingraph"), "serve", *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> str:
    base_path = tmp_path_factory.mktemp("counter")
    small_models.save_counter(base_path / "1")
    return str(base_path)


def test_it_says_where_it_serves_and_a_request_in_flight_outlives_sigterm(counter, tmp_path):
    answers = []
    with serving(
        "--model", f"a={counter}", "--model", f"b={counter}", "--rest-port", "0", "--grpc-port", "0",
        stderr=tmp_path / "log",
    ) as process:  # fmt: skip
        ready = READY.fullmatch(process.stdout.readline().strip())
        assert ready is not None
        assert ready["models"] == "a, b"
        client = RestClient(port=int(ready["rest"]))
        assert client.predict("a", {"n": 3}) == {"count": [3]}

        slow = threading.Thread(target=lambda: answers.append(client.predict("b", {"n": 200_000})))
        slow.start()
        slow.join(0.3)
        assert slow.is_alive(), "the request is too quick to be in flight"
        process.send_signal(signal.SIGTERM)
        slow.join()

        assert process.wait(timeout=30) == 0
        assert process.stdout.read() == "stopped\n"
    assert answers == [{"count": [200_000]}]
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line for line in lines if " INFO " not in line] == []


def test_while_there_is_no_version_it_says_so_and_can_be_stopped(tmp_path):
    (tmp_path / "models").mkdir()

    with serving(
        "--model", f"m={tmp_path / 'models'}", "--rest-port", "0", "--grpc-port", "0", stderr=tmp_path / "log"
    ) as process:
        while "directory named by a number" not in (tmp_path / "log").read_text():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)

        assert process.wait(timeout=30) == 0
        assert process.stdout.read() == "stopped\n"


@pytest.mark.parametrize("kind", ["rest", "grpc"])
def test_a_port_in_use_ends_it_with_one_sentence(counter, tmp_path, kind):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        ports = {"rest": "0", "grpc": "0", kind: str(listener.getsockname()[1])}
        with serving(
            "--model", f"m={counter}", "--rest-port", ports["rest"], "--grpc-port", ports["grpc"],
            stderr=tmp_path / "log",
        ) as process:  # fmt: skip
            assert process.wait(timeout=60) == 2
            assert process.stdout.read() == ""
    errors = [line for line in (tmp_path / "log").read_text().splitlines() if line.startswith("Error")]
    assert len(errors) == 1
    assert f"port {ports[kind]} of 127.0.0.1 cannot be opened" in errors[0]


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (["heart"], "expected NAME=BASE_PATH, such as heart=models/heart, received 'heart'"),
        (["a/b=models"], "received 'a/b=models'"),
        (["=models"], "received '=models'"),
        (["m="], "received 'm='"),
        (["m=a", "m=b"], "m is given twice"),
        ([], "expected either --model NAME=BASE_PATH, once or several times, or --model-config-file"),
    ],
)
def test_a_wrong_model_option_is_explained(models, message):
    arguments = [part for model in models for part in ("--model", model)]

    result = CliRunner().invoke(main, ["serve", *arguments])

    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model-config-file", "models.config", "--request-log", "logs/m"], "in a model config file logging_config"),
        (["--model", "m=models", "--request-log-sampling", "0.1"], "is set without --request-log."),
        (["--model", "m=models", "--request-log", "logs/"], "such as logs/heart, received 'logs/'"),
        (["--model", "m=models", "--request-log", "gs://logs/m"], "in a local file system"),
    ],
)
def test_a_request_log_that_cannot_be_is_explained(arguments, message):
    result = CliRunner().invoke(main, ["serve", *arguments])

    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_requests_are_in_the_log_when_it_has_stopped(counter, tmp_path):
    ports = ["--rest-port", "0", "--grpc-port", "0", "--request-log", str(tmp_path / "logs/m")]
    with serving("--model", f"m={counter}", *ports, stderr=tmp_path / "log") as process:
        ready = READY.fullmatch(process.stdout.readline().strip())
        assert ready is not None
        for number in range(50):
            RestClient(port=int(ready["rest"])).predict("m", {"n": number})
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    (file,) = (tmp_path / "logs").iterdir()
    assert sum(1 for _ in tf.data.TFRecordDataset(str(file))) == 50


@pytest.mark.parametrize("batching", [(), ("--enable-batching", "--batching-parameters-file")])
def test_what_was_accepted_under_load_is_answered_after_sigterm(counter, tmp_path, batching):
    (tmp_path / "monitoring.config").write_text("prometheus_config { enable: true }")
    (tmp_path / "batching.config").write_text(
        "max_batch_size { value: 1 } num_batch_threads { value: 2 } max_enqueued_batches { value: 100 }"
    )
    arguments = ["--model", f"m={counter}", "--rest-port", "0", "--grpc-port", "0"]
    arguments += ["--monitoring-config-file", str(tmp_path / "monitoring.config")]
    arguments += [*batching, str(tmp_path / "batching.config")] if batching else []
    with serving(*arguments, stderr=tmp_path / "log") as process:
        ready = READY.fullmatch(process.stdout.readline().strip())
        assert ready is not None
        # With batching on, a request has rows.
        inputs = {"n": [10_000]} if batching else {"n": 10_000}
        name = "rows" if batching else "serving_default"
        with ThreadPoolExecutor(12) as threads:
            clients = [RestClient(port=int(ready["rest"])), GrpcClient(port=int(ready["grpc"]))]
            answers = [threads.submit(clients[number % 2].predict, "m", inputs, signature=name) for number in range(12)]
            # On a busy machine the first are answered before the last are sent.
            while sum(answer.done() for answer in answers) + in_flight(int(ready["rest"])) < 12:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            answered = [list(answer.result()["count"]) for answer in answers]
        assert process.wait(timeout=60) == 0
    assert answered == [[10_000]] * 12


def in_flight(rest_port: int) -> float:
    """How many requests the server works on or has queued, as its metrics say."""
    with urllib.request.urlopen(f"http://127.0.0.1:{rest_port}/monitoring/prometheus/metrics") as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("ingraph_requests_in_flight{"))


def test_a_model_config_file_made_from_labels_serves_them_and_is_followed(tmp_path):
    base_path = str(tmp_path / "models" / "heart")
    for addend in (1.0, 2.0, 3.0):
        small_models.save_half_plus_two(tmp_path / f"{addend}", addend)
        publish(base_path, str(tmp_path / f"{addend}"), {"data_fingerprint": f"{addend}", "code_fingerprint": "c"})
    config = tmp_path / "models.config"

    def render() -> None:
        result = CliRunner().invoke(main, ["models", "config", base_path])
        assert result.exit_code == 0
        (tmp_path / "new.config").write_text(result.stdout)
        (tmp_path / "new.config").rename(config)

    def labels(client: RestClient) -> list[float]:
        return [float(client.predict("heart", {"x": [0.0]}, label=label)["y"][0]) for label in ("stable", "canary")]

    label(base_path, "stable", 1)
    label(base_path, "canary", 2)
    render()
    with serving(
        "--model-config-file", str(config), "--model-config-file-poll-wait-seconds", "0.1",
        "--allow-version-labels-for-unavailable-models", "--rest-port", "0", "--grpc-port", "0",
        stderr=tmp_path / "log",
    ) as process:  # fmt: skip
        ready = READY.fullmatch(process.stdout.readline().strip())
        assert ready is not None
        with RestClient(port=int(ready["rest"])) as client:
            assert labels(client) == [1.0, 2.0]
            assert client.predict("heart", {"x": [0.0]})["y"] == [3.0]
            promote(base_path)
            render()
            while labels(client) != [2.0, 2.0]:
                time.sleep(0.05)
            while [status.state for status in client.status("heart") if status.version == 1] != ["END"]:
                time.sleep(0.05)


@pytest.mark.parametrize(
    ("flag", "content", "message"),
    [
        (
            "--model-config-file",
            "model_config_list {",
            "Error parsing text-format tensorflow.serving.ModelServerConfig",
        ),
        ("--batching-parameters-file", "max_batch_size: 1", "Error parsing text-format tensorflow.serving.Batching"),
        ("--monitoring-config-file", "enable: true", "Error parsing text-format tensorflow.serving.MonitoringConfig"),
        ("--monitoring-config-file", None, "cannot be read: No such file or directory"),
        ("--require-signature", "no key", "expected a public key in PEM, ECDSA on P-256 or Ed25519"),
        ("--require-signature", None, "the public key cannot be read: No such file or directory"),
    ],
)
def test_a_config_file_that_cannot_be_used_stops_the_start_with_one_sentence(tmp_path, flag, content, message):
    file = tmp_path / "wrong.config"
    if content is not None:
        file.write_text(content)
    others = [] if flag == "--model-config-file" else ["--model", f"m={tmp_path}"]
    others += ["--enable-batching"] if flag == "--batching-parameters-file" else []

    result = CliRunner().invoke(main, ["serve", flag, str(file), *others])

    assert result.exit_code == 2
    assert message in result.stderr
    assert str(file) in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_batching_parameters_without_batching_are_refused(tmp_path):
    result = CliRunner().invoke(main, ["serve", "--model", f"m={tmp_path}", "--batching-parameters-file", "b.config"])

    assert result.exit_code == 2
    assert "--batching-parameters-file is set without --enable-batching" in result.stderr


def test_a_loaded_model_answers_after_its_files_are_gone(heart_run, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(heart_run.base_path / "1", copy)
    model = SessionModel(str(copy))
    shutil.rmtree(copy)
    inputs = model.signatures["classify"].inputs
    patient = {name: np.array([b"" if info.dtype == tf.string else 1]) for name, info in inputs.items()}
    labels = model.run("classify", patient)["labels"]
    assert sorted(labels[0].tolist()) == [b"disease", b"healthy"]
