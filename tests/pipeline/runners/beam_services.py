"""Beam's Python job service and a pool of workers, each in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.runners.beam_engine import BeamOptions

JOB_SERVICE = "apache_beam.runners.portability.local_job_service_main"
WORKER_POOL = "apache_beam.runners.worker.worker_pool_main"
STARTED = "Starting worker with command"
# Both listen to every machine that can reach this one; in a test, to this machine only.
ON_LOOPBACK = """
import runpy, sys
from grpc import _server
bind = _server._Server.add_insecure_port
_server._Server.add_insecure_port = lambda self, address: bind(self, address.replace("[::]", "127.0.0.1"))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True)
class BeamServices:
    """Where jobs are sent to, and where workers come from."""

    job_port: int
    pool_port: int
    pool_log: Path

    @property
    def options(self) -> BeamOptions:
        """What a config says under `beam` to use them."""
        return BeamOptions(
            runner="PortableRunner",
            options={
                "job_endpoint": f"localhost:{self.job_port}",
                "environment_type": "EXTERNAL",
                "environment_config": f"localhost:{self.pool_port}",
            },
        )

    def workers_started(self) -> int:
        """How many processes the pool has started; one for each job."""
        return self.pool_log.read_text(errors="replace").count(STARTED)


@contextmanager
def beam_services(folder: Path) -> Iterator[BeamServices]:
    """Start both in an empty folder, so that workers find ingraph as it is installed; end them and their workers."""
    services = BeamServices(_free_port(), _free_port(), folder / "worker_pool.log")
    processes = [
        _start(
            folder / "job_service.log", JOB_SERVICE, f"--port={services.job_port}", f"--staging_dir={folder}/staged"
        ),
        _start(services.pool_log, WORKER_POOL, f"--service_port={services.pool_port}"),
    ]
    try:
        for process, port in zip(processes, (services.job_port, services.pool_port), strict=True):
            _wait_for(port, process)
        yield services
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def _start(log: Path, module: str, *arguments: str) -> subprocess.Popen[bytes]:
    # The pool starts `python` as the PATH has it.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, "-c", ON_LOOPBACK, module, *arguments],
            cwd=log.parent,
            env={**os.environ, "PATH": path},
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group that ends together with the workers
        )


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    while True:
        assert process.poll() is None, f"{process.args[3]} ended with status {process.returncode}"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
