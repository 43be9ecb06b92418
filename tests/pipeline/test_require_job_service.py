"""A Beam job service that is not there, which Beam itself would end in a trace after a minute."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from components.errors import BrokenInput
from pipeline.runners.job_service import require_job_service
from tests.pipeline.conftest import ingraph


@pytest.fixture
def silent_endpoint():
    """Takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def arguments(endpoint: str, runner: str = "PortableRunner") -> list[str]:
    return [f"--runner={runner}", f"--job_endpoint={endpoint}", "--environment_type=EXTERNAL", "--flag"]


@pytest.mark.parametrize("endpoint", ["127.0.0.1:1", "no such host:1"])
def test_an_endpoint_that_nobody_listens_at_is_named_with_what_to_do(endpoint):
    with pytest.raises(BrokenInput, match=rf"job_endpoint is '{endpoint}', .* start one there .* `--set beam\.options"):
        require_job_service(arguments(endpoint), seconds=0.2)


def test_a_listener_that_is_no_job_service_is_none(silent_endpoint):
    with pytest.raises(BrokenInput, match=r"no Beam job service answers within 0\.2 s"):
        require_job_service(arguments(silent_endpoint), seconds=0.2)


def test_one_that_is_there_passes():
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    require_job_service(arguments(f"127.0.0.1:{port}"))
    server.stop(None).wait()


@pytest.mark.parametrize("given", [arguments("embed"), arguments("127.0.0.1:1", "FlinkRunner"), ["--runner=x"]])
def test_what_needs_no_job_service_is_not_asked_for_one(given):
    require_job_service(given, seconds=0)


def test_a_run_says_so_before_it_loads_anything(config_file, tmp_path):
    rows = "a,bought\n" + "".join(f"{row},{'yes' if row % 2 else 'no'}\n" for row in range(40))
    beam = "beam={runner: PortableRunner, options: {job_endpoint: '127.0.0.1:1', environment_type: LOOPBACK}}"
    refused = ingraph("run", config_file(rows), "--workdir", str(tmp_path), "--set", beam)
    assert refused.status == 2, refused
    assert "stopped    beam.options.job_endpoint is '127.0.0.1:1', where no Beam job service answers" in refused.output
    assert "loading TFX" not in refused.output
