"""What runs Beam's pipelines: its options, whether it is there, and a trial of it for `ingraph doctor --beam`.

    python -m pipeline.runners.beam_engine JSON

runs a pipeline of one function, which a worker executes, and prints what it found there.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, model_validator

from components.errors import BrokenInput

if TYPE_CHECKING:
    from apache_beam.runners.portability.job_server import JavaJarJobServer

IN_MEMORY_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
# TFX builds a wheel of itself for remote workers before each step, 2 s a time, unless an image is named.
NO_IMAGE = "unused"
_IMAGE_OPTION = "sdk_container_image"

OptionValue = str | int | float | bool


@dataclass(frozen=True)
class _Cluster:
    """An engine whose job service is a Java program that Beam starts.

    Attributes:
        runner: as Beam names it.
        option: that takes the master.
        scheme: of the master's address.
    """

    runner: str
    option: str
    scheme: str


_CLUSTERS = {
    "flink": _Cluster("FlinkRunner", "flink_master", "http://"),
    "spark": _Cluster("SparkRunner", "spark_master_url", "spark://"),
}
_DOCKER, _EXTERNAL, _LOOPBACK = "DOCKER", "EXTERNAL", "LOOPBACK"
# What Beam takes where no option says it.
_ENVIRONMENT = {"PortableRunner": _DOCKER, "DataflowRunner": _DOCKER}
# Where Beam's documentation places a pool beside each worker of a cluster.
_POOL_OF_A_CLUSTER = "localhost:50000"


class BeamOptions(BaseModel):
    """Beam's runner and its options.

    Attributes:
        runner: as Beam names it (`DataflowRunner`, `PortableRunner`, …), or a class by its dotted path, or `flink` or
            `spark` with a master. The default runs in the step's own process; Beam's `DirectRunner` would look for a
            binary on the network first.
        master: `host:port` of Flink's or Spark's. Python's workers are then processes of this machine where the master
            is on it, and otherwise come from a pool beside each of the cluster's; options may say otherwise.
        options: Beam's pipeline options without the dashes: `{project: my-project, num_workers: 4}`; a list repeats
            the option, `true` sets a flag.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    runner: str = IN_MEMORY_RUNNER
    master: str | None = None
    options: dict[str, OptionValue | list[OptionValue]] = {}

    @model_validator(mode="after")
    def _check(self) -> BeamOptions:
        if (self.runner in _CLUSTERS) != (self.master is not None):
            raise ValueError(
                f"expected master: HOST:PORT with runner: {' or '.join(_CLUSTERS)}, and with no other; received "
                f"runner: {self.runner}, master: {self.master}"
            )
        for name in self.options:
            if name.startswith("-") or name == "runner":
                raise ValueError(f"options: {name!r}: give names without dashes, and the runner as `beam.runner`")
        return self

    def pipeline_args(self, image: str | None = None) -> list[str]:
        """Command-line arguments, as TFX's `beam_pipeline_args` takes them.

        Args:
            image: what remote workers run, where the options name none: our DoFns import this project.

        Raises:
            BrokenInput: workers are containers, and no image is given.
        """
        runner, options = self._of_beam()
        if (
            options.get("environment_type", _ENVIRONMENT.get(runner)) == _DOCKER
            and not image
            and _IMAGE_OPTION not in options
        ):
            raise BrokenInput(
                f"beam.runner is {self.runner}, whose workers are containers that must hold ingraph: "
                "`--set cluster.image=REGISTRY/ingraph:TAG` gives them the image of deploy/image/Dockerfile"
            )
        if _IMAGE_OPTION not in options:
            options[_IMAGE_OPTION] = NO_IMAGE if runner == IN_MEMORY_RUNNER else (image or NO_IMAGE)
        arguments = [f"--runner={runner}"]
        for name, value in options.items():
            for each in value if isinstance(value, list) else [value]:
                if each is not False:
                    arguments.append(f"--{name}" if each is True else f"--{name}={each}")
        return arguments

    def _of_beam(self) -> tuple[str, dict[str, OptionValue | list[OptionValue]]]:
        """The runner as Beam names it, and its options with those that a master stands for."""
        if self.master is None:
            return self.runner, dict(self.options)
        cluster = _CLUSTERS[self.runner]
        is_bare = "://" not in self.master and _host_and_port(self.master)[0]
        master = cluster.scheme + self.master if is_bare else self.master
        return cluster.runner, {cluster.option: master, **_workers_of(master), **self.options}


def _workers_of(master: str) -> dict[str, OptionValue]:
    """Where Python's workers of a cluster come from: from the run itself where all is on one machine."""
    if is_this_machine(master):
        return {"environment_type": _LOOPBACK}
    return {"environment_type": _EXTERNAL, "environment_config": _POOL_OF_A_CLUSTER}


_PORTABLE_RUNNER = "PortableRunner"
# Beam starts a job service of its own.
_EMBEDDED = "embed"
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


# How long each service has to answer.
_SECONDS = 5.0


def require_engine(arguments: Sequence[str], seconds: float = _SECONDS) -> None:
    """Connect to what a runner needs once, which costs milliseconds; Beam itself waits for ever, or ends in a trace.

    Args:
        arguments: Beam's pipeline options, see BeamOptions; where steps run in their own process
            nothing is asked.
        seconds: how long each service has to answer.

    Raises:
        BrokenInput: no job service, no cluster, no pool of workers, no Java or no job server's jar is there.
    """
    options = _named(arguments)
    runner = options.get("runner", "")
    if runner == _PORTABLE_RUNNER or (_cluster_of(runner) and "job_endpoint" in options):
        endpoint = options.get("job_endpoint", _EMBEDDED)
        if endpoint != _EMBEDDED and not _speaks_grpc(endpoint, seconds):
            raise BrokenInput(
                f"beam.options.job_endpoint is {endpoint!r}, where no Beam job service answers within {seconds:g} s; "
                "start one (`python -m apache_beam.runners.portability.local_job_service_main --port PORT`), or name "
                "another"
            )
        _require_workers(options, endpoint == _EMBEDDED or is_this_machine(endpoint), seconds)
    elif cluster := _cluster_of(runner):
        master = options.get(cluster.option, "")
        _require_java(arguments, options, runner)
        _require_master(master, runner, seconds)
        _require_workers(options, is_this_machine(master), seconds)
        # Last of all: it may be a download.
        _require_job_server(arguments, options, runner)


def start_engine(arguments: Sequence[str]) -> list[str]:
    """Do as require_engine, and start what all pipelines of this process share with Flink or Spark.

    Beam would start a job server for each pipeline, which takes 20 s a time: it is a Java program with all of the
    engine's jars. And its own LOOPBACK fails where a cluster has several workers, see _start_workers.

    Args:
        arguments: Beam's pipeline options.

    Returns:
        the arguments, with the endpoints of what was started.

    Raises:
        BrokenInput: see require_engine; or the job server ends as it begins.
    """
    require_engine(arguments)
    return _sharing(arguments)


def _sharing(arguments: Sequence[str]) -> list[str]:
    options = _named(arguments)
    runner = options.get("runner", "")
    if not _cluster_of(runner) or "job_endpoint" in options or _submits_uber_jar(arguments, runner):
        return list(arguments)
    endpoint = _start_job_server(tuple(arguments), runner)
    if not _speaks_grpc(endpoint, _SECONDS):  # of a process that lives for days, it may have ended
        _start_job_server.cache_clear()
        endpoint = _start_job_server(tuple(arguments), runner)
    reached = [*arguments, f"--job_endpoint={endpoint}"]
    if options.get("environment_type") == _LOOPBACK:
        reached.remove(f"--environment_type={_LOOPBACK}")
        reached += [f"--environment_type={_EXTERNAL}", f"--environment_config={_start_workers()}"]
    return reached


@cache
def _start_job_server(arguments: tuple[str, ...], runner: str) -> str:
    """The endpoint of a job server, which ends with this process."""
    port = int(_named(arguments).get("job_port", 0)) or _free_port()
    server = _job_server([*arguments, f"--job_port={port}"], runner)
    said = _LastLine(logging.INFO)
    log = logging.getLogger(type(server).__name__)  # has what the program prints
    level = log.level
    log.addHandler(said)
    log.setLevel(logging.INFO)
    try:
        server.start()
    except RuntimeError as error:
        raise BrokenInput(
            f"the job server of {runner}, a Java program, ended as it began: {said.line or error}; "
            f"beam.options.{_short(runner)}_job_server_jar names its jar"
        ) from None
    finally:
        log.removeHandler(said)
        log.setLevel(level)
    atexit.register(server.stop)
    return f"localhost:{port}"


class _LastLine(logging.Handler):
    """Keeps the last line at the level INFO."""

    line = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.INFO and record.getMessage():
            self.line = record.getMessage()


@cache
def _start_workers() -> str:
    """The endpoint of a pool whose workers are threads of this process, as those of LOOPBACK are.

    Each worker of a cluster counts its Python workers from 1, and ends them by these numbers: in Beam's own pool it
    would end those of another, too. Here they end with the cluster's side of their connection alone.
    """
    from apache_beam.portability.api import beam_fn_api_pb2
    from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer

    class Pool(BeamFnExternalWorkerPoolServicer):
        def StopWorker(self, stop_worker_request: object, unused_context: object) -> object:  # noqa: N802 (Beam's)
            return beam_fn_api_pb2.StopWorkerResponse()

    endpoint, server = Pool.start()
    atexit.register(server.stop, 0)
    return str(endpoint)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    return port


def _named(arguments: Sequence[str]) -> dict[str, str]:
    return dict(argument.removeprefix("--").split("=", 1) for argument in arguments if "=" in argument)


def _cluster_of(runner: str) -> _Cluster | None:
    return next((cluster for cluster in _CLUSTERS.values() if cluster.runner == runner), None)


def is_this_machine(address: str) -> bool:
    """Whether `host:port`, with or without a scheme, is of loopback; Beam's `[local]`, `[auto]` and `local[2]` are."""
    return _host_and_port(address)[0] in ("", *_THIS_MACHINE)


def _host_and_port(address: str) -> tuple[str, int]:
    """("", 0) where it is no address."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        return (parts.hostname or "", parts.port) if parts.port else ("", 0)
    except ValueError:
        return "", 0


def _speaks_grpc(endpoint: str, seconds: float) -> bool:
    import grpc

    with grpc.insecure_channel(endpoint) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=seconds)
        except grpc.FutureTimeoutError:
            return False
    return True


def _require_workers(options: Mapping[str, str], engine_is_here: bool, seconds: float) -> None:
    """Ask for the pool of workers; loopback is each machine's own, and this one's only where the engine is."""
    pool = options.get("environment_config", "")
    if options.get("environment_type") != _EXTERNAL or not _host_and_port(pool)[0]:
        return
    if (engine_is_here or not is_this_machine(pool)) and not _speaks_grpc(pool, seconds):
        raise BrokenInput(
            f"beam.options.environment_config is {pool!r}, where no pool of Beam's workers answers within "
            f"{seconds:g} s; start one in ingraph's environment (`python -m "
            "apache_beam.runners.worker.worker_pool_main --service_port PORT`), or name another"
        )


def _require_java(arguments: Sequence[str], options: Mapping[str, str], runner: str) -> None:
    java = options.get("job_server_java_launcher", "java")
    if not _submits_uber_jar(arguments, runner) and shutil.which(java) is None:
        raise BrokenInput(
            f"beam.runner is {runner}, whose job server is a Java program, and {java!r} is no program here; "
            "install a Java runtime, or name one as beam.options.job_server_java_launcher"
        )


def _require_job_server(arguments: Sequence[str], options: Mapping[str, str], runner: str) -> None:
    """Let Beam find the job server's jar, or download it into its cache."""
    server = _job_server(arguments, runner)
    try:
        server.local_jar(server.path_to_jar(), options.get("jar_cache_dir"))
    except (RuntimeError, ValueError, OSError) as error:
        raise BrokenInput(
            f"the jar of Beam's job server for {runner} is not to be had ({str(error).splitlines()[0]}); fetch it "
            f"where the network is open, and name it as beam.options.{_short(runner)}_job_server_jar"
        ) from error


def _job_server(arguments: Sequence[str], runner: str) -> JavaJarJobServer:
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability import flink_runner, spark_runner

    servers = {"FlinkRunner": flink_runner.FlinkJarJobServer, "SparkRunner": spark_runner.SparkJarJobServer}
    return servers[runner](PipelineOptions(list(arguments)))


def _submits_uber_jar(arguments: Sequence[str], runner: str) -> bool:
    """Whether a pipeline goes to the cluster as a jar, without a job server."""
    return f"--{_short(runner)}_submit_uber_jar" in arguments


def _short(runner: str) -> str:
    """As Beam's options begin."""
    return runner.removesuffix("Runner").lower()


def _require_master(master: str, runner: str, seconds: float) -> None:
    host, port = _host_and_port(master)
    if not host:
        return  # the job server brings a cluster of its own
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except OSError as error:
        raise BrokenInput(
            f"the master of {runner} is {master!r}, where nothing answers ({error}); start the cluster, or name "
            "another as beam.master"
        ) from error


@dataclass(frozen=True)
class Trial:
    """What a pipeline of one function came to.

    Attributes:
        failure: why it did not end well, or "".
        seconds: that it took, with the start of a worker.
        versions: package -> its version where the function ran, "" where it is not installed; `python` too.
        unseen: the paths that are not there.
        shared: whether a folder of this machine was there with what is in it, and took a file that arrived here.
    """

    failure: str
    seconds: float
    versions: Mapping[str, str]
    unseen: Sequence[str]
    shared: bool


# Functions and records travel by them.
PACKAGES = ("ingraph", "apache-beam", "tensorflow", "tensorflow-transform", "tfx", "tfx-bsl")
_NAMESPACE = "ingraph.doctor"


def try_engine(arguments: Sequence[str], folder: Path, paths: Sequence[str], seconds: float = 180) -> Trial:
    """Run a function on a worker, in a process of its own: Beam waits for ever for a worker that does not come.

    Args:
        arguments: Beam's pipeline options.
        folder: that workers must share; something is written there for a while.
        paths: that workers must see.
        seconds: after which it is given up.

    Raises:
        BrokenInput: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BrokenInput(f"{folder}: cannot be written to: {error.strerror}; --workdir names another") from error
    with tempfile.TemporaryDirectory(prefix=".ingraph-doctor-", dir=folder.absolute()) as shared:
        token = os.urandom(8).hex()
        Path(shared, "here").write_text(token, encoding="ascii")
        asked = {"arguments": list(arguments), "shared": shared, "token": token, "paths": list(paths)}
        started = time.monotonic()
        output, failure = _own_process([sys.executable, "-m", __name__, json.dumps(asked)], seconds)
        spent = time.monotonic() - started
        found = {} if failure else json.loads(output.splitlines()[-1])
        arrived = Path(shared, "there").exists()
    failure = failure or found.get("failure", "")
    return Trial(
        failure, spent, found.get("versions", {}), found.get("unseen", ()), found.get("shared", False) and arrived
    )


def _own_process(command: Sequence[str], seconds: float) -> tuple[str, str]:
    """What it printed, and why it failed or ""."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True
    ) as process:
        try:
            output, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return "", f"no worker has answered within {seconds:g} s"
    if process.returncode == 0:
        return output, ""
    said = [line.strip() for line in errors.splitlines() if line.strip()] or [f"exit status {process.returncode}"]
    causes = [number for number, line in enumerate(said) if line.partition(":")[0].endswith(("Error", "Exception"))]
    last = causes[-1] if causes else len(said) - 1
    # gRPC's say in the lines that follow what it was.
    return output, " ".join(said[last : last + 3] if said[last].endswith(":") else said[last : last + 1])


def package_versions() -> dict[str, str]:
    """Package -> its version here, "" where it is not installed; `python` too."""
    return look(json.dumps({"packages": PACKAGES, "paths": []}))["versions"]


def look(asked: str) -> dict[str, Any]:
    """What stands where this runs; given to workers as code, as they may lack ingraph."""
    request = json.loads(asked)
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in request["packages"]:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = ""
    shared = False
    if folder := request.get("shared"):
        try:
            shared = Path(folder, "here").read_text(encoding="ascii") == request["token"]
            Path(folder, "there").touch()
        except OSError:
            shared = False
    unseen = [path for path in request["paths"] if not Path(path).exists()]
    return {"versions": versions, "unseen": unseen, "shared": shared}


def _try(request: Mapping[str, Any]) -> None:
    """Let a worker look, and print what it found: it comes back as the name of a counter, as every runner has them."""
    import apache_beam as beam
    from apache_beam.metrics import Metrics, MetricsFilter
    from apache_beam.options.pipeline_options import PipelineOptions

    namespace = _NAMESPACE

    def count(found: dict[str, Any]) -> None:
        Metrics.counter(namespace, json.dumps(found)).inc()

    pipeline = beam.Pipeline(options=PipelineOptions(_sharing(request["arguments"])))
    asked = json.dumps({**request, "arguments": [], "packages": PACKAGES})
    _ = pipeline | beam.Create([asked]) | beam.Map(look) | beam.Map(count)
    result = pipeline.run()
    result.wait_until_finish()
    (counter,) = result.metrics().query(MetricsFilter().with_namespace(namespace))["counters"]
    print(counter.key.metric.name)


if __name__ == "__main__":
    try:
        _try(json.loads(sys.argv[1]))
    except BrokenInput as broken:
        print(json.dumps({"failure": str(broken)}))
