"""Beam's Python job service, a pool of workers, and clusters of Flink and Spark, each in processes of their own."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
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


# The jars of clusters and of Beam's job servers, by the profiles of pom.xml; of each the SHA-256.
CLUSTERS = Path(__file__).parent / "clusters"
COPY_DEPENDENCIES = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
JOB_SERVERS = {
    "flink": "org.apache.beam.runners.flink.FlinkJobServerDriver",
    "spark": "org.apache.beam.runners.spark.SparkJobServerDriver",
}
JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
# Without Flink's scripts, which work all of these out.
FLINK_CONFIG = """
jobmanager: {{rpc: {{address: 127.0.0.1, port: {rpc_port}}}, bind-host: 127.0.0.1}}
rest: {{address: 127.0.0.1, bind-address: 127.0.0.1, port: {rest_port}}}
restart-strategy: {{type: fixed-delay, fixed-delay: {{attempts: 50, delay: 1 s}}}}
cluster: {{evenly-spread-out-slots: true}}
heartbeat: {{interval: 1000, timeout: 5000}}
taskmanager:
  host: 127.0.0.1
  bind-host: 127.0.0.1
  cpu: {{cores: 1}}
  numberOfTaskSlots: 2
  network: {{sort-shuffle: {{min-buffers: 32}}}}
  memory:
    framework: {{heap: {{size: 128m}}, off-heap: {{size: 128m}}}}
    task: {{heap: {{size: 512m}}, off-heap: {{size: 0m}}}}
    managed: {{size: 128m}}
    network: {{min: 256m, max: 256m}}
    jvm-metaspace: {{size: 256m}}
    jvm-overhead: {{min: 192m, max: 192m}}
"""
# What Flink's and Spark's own scripts open to them of Java 17.
OPENED = ("java.lang", "java.lang.invoke", "java.net", "java.io", "java.nio", "java.util", "java.util.concurrent")
OPENED += ("java.util.concurrent.atomic", "java.time", "sun.nio.ch", "sun.nio.cs", "sun.util.calendar")
JAVA_OPTIONS = [
    "--add-exports=java.base/sun.net.util=ALL-UNNAMED",
    *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in OPENED),
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
            return int(self._asked("overview")["taskmanagers"])
        except OSError:
            return 0

    def jobs(self) -> list[dict[str, Any]]:
        """Those that it ever had: number `jid`, `state` and the number of `tasks` in each state, by their start."""
        return sorted(self._asked("jobs/overview")["jobs"], key=lambda job: job["start-time"])

    def failures(self, job: str) -> list[str]:
        """Why a job has begun anew, each time."""
        history = self._asked(f"jobs/{job}/exceptions")["exceptionHistory"]["entries"]
        return [entry["exceptionName"] for entry in history]

    def _asked(self, question: str) -> Any:
        with urlopen(f"http://127.0.0.1:{self.rest_port}/{question}", timeout=5) as answer:
            return json.load(answer)


@contextmanager
def flink_cluster(folder: Path) -> Iterator[FlinkCluster]:
    """Start Flink from its jars, which are fetched once; end it, and what it has started."""
    ports = {"rest_port": _free_port(), "rpc_port": _free_port()}
    (folder / "config.yaml").write_text(FLINK_CONFIG.format(**ports))
    with ExitStack() as processes:

        def start(name: str, main_class: str) -> subprocess.Popen[bytes]:
            program = [f"{_jars('flink')}/*", main_class, "--configDir", str(folder)]
            return processes.enter_context(_java(folder / f"{name}.log", program))

        job_manager = start("job_manager", JOB_MANAGER)
        task_managers = [start(f"task_manager{number}", TASK_MANAGER) for number in range(2)]
        cluster = FlinkCluster(ports["rest_port"], task_managers)
        while cluster.task_managers_there() < len(task_managers):
            _require(job_manager, *task_managers)
            time.sleep(0.5)
        yield cluster


@contextmanager
def spark_cluster(folder: Path) -> Iterator[str]:
    """Start a master and a worker of Spark from its jars, which are fetched once, and give the master's address."""
    port, page = _free_port(), _free_port()
    home = {"SPARK_HOME": str(folder), "SPARK_SCALA_VERSION": "2.12", "SPARK_LOCAL_IP": "127.0.0.1"}
    (folder / "jars").symlink_to(_jars("spark"))
    program, here = [f"{_jars('spark')}/*"], ["--host", "127.0.0.1", "--webui-port"]
    master = [*program, SPARK_MASTER, *here, str(page), "--port", str(port)]
    worker = [*program, SPARK_WORKER, *here, "0", "--cores", "2", "--memory", "2g", "--work-dir", str(folder / "work")]
    with (
        _java(folder / "master.log", master, **home) as first,
        _java(folder / "worker.log", [*worker, f"spark://127.0.0.1:{port}"], **home) as second,
    ):
        while not _spark_workers(page):
            _require(first, second)
            time.sleep(0.5)
        yield f"127.0.0.1:{port}"


SPARK_MASTER = "org.apache.spark.deploy.master.Master"
SPARK_WORKER = "org.apache.spark.deploy.worker.Worker"


def _spark_workers(page: int) -> int:
    try:
        with urlopen(f"http://127.0.0.1:{page}/json/", timeout=5) as answer:
            return int(json.load(answer)["aliveworkers"])
    except OSError:
        return 0


@contextmanager
def _java(log: Path, program: list[str], **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Java program in a process group of its own, which is ended: class path, class and arguments."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            ["java", *JAVA_OPTIONS, "-cp", *program],
            env=os.environ | environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def _require(*processes: subprocess.Popen[bytes]) -> None:
    for process in processes:
        assert process.poll() is None, f"{process.args} ended with status {process.returncode}"


def job_server(engine: str) -> Path:
    """One jar of all that Beam's job server for an engine needs, as Beam distributes it: each job sends it whole."""
    profile = f"{engine}_job_server"
    jar = demo_data.cache_directory() / "clusters" / f"{profile}.jar"
    if not jar.exists():
        parts = sorted(_jars(profile).glob("*.jar"))
        services: dict[str, bytes] = {}
        written = {MANIFEST}
        unfinished = jar.with_suffix(".unfinished")
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as whole:
            main_class = JOB_SERVERS[engine]
            whole.writestr(MANIFEST, f"Manifest-Version: 1.0\nMain-Class: {main_class}\nMulti-Release: true\n")
            for archive in map(zipfile.ZipFile, parts):
                for name in archive.namelist():
                    if name.startswith(SERVICES) and name != SERVICES:  # of each jar some
                        services[name] = services.get(name, b"") + archive.read(name) + b"\n"
                    elif name not in written and not name.endswith(("module-info.class", ".SF", ".RSA", ".DSA")):
                        written.add(name)
                        whole.writestr(name, archive.read(name))
                archive.close()
            for name, content in services.items():
                whole.writestr(name, content)
        unfinished.rename(jar)
    return jar


MANIFEST, SERVICES = "META-INF/MANIFEST.MF", "META-INF/services/"


def _jars(profile: str) -> Path:
    """The folder of the jars of a profile, in the cache of demo data."""
    cache = demo_data.cache_directory() / "clusters"
    jars = cache / profile
    if not jars.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        maven = ["mvn", "--quiet", "--batch-mode", "--file", str(CLUSTERS / "pom.xml"), "--activate-profiles", profile]
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            fetched = Path(folder, profile)
            chosen = ["-DincludeScope=runtime", f"-DoutputDirectory={fetched}"]
            subprocess.run([*maven, COPY_DEPENDENCIES, *chosen], check=True)
            found = [f"{_sha256(jar)}  {profile}/{jar.name}" for jar in sorted(fetched.iterdir())]
            expected = [line for line in (CLUSTERS / "SHA256SUMS").read_text().splitlines() if f"  {profile}/" in line]
            assert sorted(found) == sorted(expected), f"not what was fetched before: {set(found) ^ set(expected)}"
            fetched.rename(jars)
    return jars


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
