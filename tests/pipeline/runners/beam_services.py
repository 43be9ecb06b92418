"""Beam's Python job service, a pool of workers, and a cluster of Flink, each in processes of their own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from pipeline import demo_data
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


# The newest that Beam 2.77 has a runner for; its wheel has what Flink's own distribution has. Apache License 2.0.
FLINK = "apache-flink-libraries==2.2.1"
FLINK_WHEEL = "apache_flink_libraries-2.2.1-py2.py3-none-any.whl"
FLINK_SHA256 = "74dc5546fbd9add8fbcdf1222a237e09491f9b80296241aef8676ec56f8e686e"
JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
# Without Flink's scripts, which work all of these out.
FLINK_CONFIG = """
jobmanager: {{rpc: {{address: 127.0.0.1, port: {rpc_port}}}, bind-host: 127.0.0.1}}
rest: {{address: 127.0.0.1, bind-address: 127.0.0.1, port: {rest_port}}}
restart-strategy: {{type: fixed-delay, fixed-delay: {{attempts: 5, delay: 2 s}}}}
taskmanager:
  host: 127.0.0.1
  bind-host: 127.0.0.1
  cpu: {{cores: 1}}
  numberOfTaskSlots: 2
  memory:
    framework: {{heap: {{size: 128m}}, off-heap: {{size: 128m}}}}
    task: {{heap: {{size: 384m}}, off-heap: {{size: 0m}}}}
    managed: {{size: 128m}}
    network: {{min: 64m, max: 64m}}
    jvm-metaspace: {{size: 256m}}
    jvm-overhead: {{min: 192m, max: 192m}}
"""
# What Flink's own configuration opens to it of Java 17.
OPENED = ("lang", "net", "io", "nio", "util", "util.concurrent", "time")
JAVA_OPTIONS = [
    "--add-exports=java.base/sun.net.util=ALL-UNNAMED",
    *(f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in OPENED),
]


@dataclass(frozen=True)
class FlinkCluster:
    """A job manager and two task managers.

    Attributes:
        rest_port: where jobs and questions go.
        task_managers: their processes.
    """

    rest_port: int
    task_managers: list[subprocess.Popen[bytes]]

    def task_managers_there(self) -> int:
        """How many the job manager knows; 0 while it does not answer."""
        try:
            with urlopen(f"http://127.0.0.1:{self.rest_port}/overview", timeout=5) as answer:
                return int(json.load(answer)["taskmanagers"])
        except OSError:
            return 0


@contextmanager
def flink_cluster(folder: Path) -> Iterator[FlinkCluster]:
    """Start Flink from its jars, which are fetched once; end it, and what it has started."""
    ports = {"rest_port": _free_port(), "rpc_port": _free_port()}
    (folder / "config.yaml").write_text(FLINK_CONFIG.format(**ports))
    java = ["java", *JAVA_OPTIONS, "-cp", f"{_flink_jars()}/*"]

    def start(name: str, main_class: str) -> subprocess.Popen[bytes]:
        with (folder / f"{name}.log").open("wb") as stream:
            return subprocess.Popen(
                [*java, main_class, "--configDir", str(folder)],
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    job_manager = start("job_manager", JOB_MANAGER)
    task_managers = [start(f"task_manager{number}", TASK_MANAGER) for number in range(2)]
    cluster = FlinkCluster(ports["rest_port"], task_managers)
    try:
        while cluster.task_managers_there() < len(task_managers):
            ended = [one.returncode for one in (job_manager, *task_managers) if one.poll() is not None]
            assert not ended, f"a process of Flink ended with status {ended[0]}; its log is in {folder}"
            time.sleep(0.5)
        yield cluster
    finally:
        for process in (job_manager, *task_managers):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def _flink_jars() -> Path:
    """The folder of Flink's jars, in the cache of demo data."""
    cache = demo_data.cache_directory() / "flink"
    jars = cache / "pyflink" / "lib"
    if not jars.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*pip, "--dest", str(cache), FLINK], check=True)
        wheel = cache / FLINK_WHEEL
        with wheel.open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == FLINK_SHA256, f"{wheel} is not what it was"
        with tempfile.TemporaryDirectory(dir=cache) as unpacked, zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked, [name for name in archive.namelist() if name.startswith("pyflink/lib/")])
            shutil.move(Path(unpacked, "pyflink"), cache)
        wheel.unlink()
    return jars
