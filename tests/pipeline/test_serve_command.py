"""`ingraph serve` as a process."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import main
from serving.client.rest_client import RestClient
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
