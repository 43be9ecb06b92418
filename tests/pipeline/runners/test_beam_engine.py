"""Runs on Beam's PortableRunner, and a job service that is not there."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import apache_beam
import grpc
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import yaml
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc
from tensorflow_data_validation import load_stats_binary
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx.dsl.compiler.compiler import Compiler

from components.errors import BrokenInput
from components.image_example_gen.component import REPORT_FILE
from pipeline.config import load_config
from pipeline.dag import Locations, create_pipeline
from pipeline.options import RunConfig
from pipeline.runners import beam_engine
from pipeline.runners.beam_engine import BeamOptions, package_versions, require_engine, start_engine, try_engine
from pipeline.runners.beam_speedups import apply_beam_speedups
from pipeline.runners.local import LocalRunner
from pipeline.tasks import raw_data, schema_file
from tests.pipeline.conftest import Finished, ingraph
from tests.pipeline.runners.beam_services import (
    JOB_SERVICE,
    ON_LOOPBACK,
    BeamServices,
    FlinkCluster,
    beam_services,
    flink_cluster,
    job_server,
    spark_cluster,
)


@pytest.fixture
def silent_endpoint():
    """Takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def arguments(endpoint: str, runner: str = "PortableRunner") -> list[str]:
    return [f"--runner={runner}", f"--job_endpoint={endpoint}", "--environment_type=EXTERNAL", "--flag"]


@pytest.mark.parametrize("endpoint", ["127.0.0.1:1", "no such host:1"])
def test_an_endpoint_that_nobody_listens_at_is_named_with_what_to_do(endpoint):
    with pytest.raises(BrokenInput, match=rf"job_endpoint is '{endpoint}', .* start one .* or name another"):
        require_engine(arguments(endpoint), seconds=0.2)


def test_a_listener_that_is_no_job_service_is_none(silent_endpoint):
    with pytest.raises(BrokenInput, match=r"no Beam job service answers within 0\.2 s"):
        require_engine(arguments(silent_endpoint), seconds=0.2)


@pytest.fixture
def service() -> Iterator[str]:
    """Speaks gRPC, as a job service and a pool of workers do."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_one_that_is_there_passes(service):
    require_engine(arguments(service))
    require_engine([*arguments(service), f"--environment_config={service}"])


@pytest.mark.parametrize("given", [arguments("embed"), ["--runner=x"], ["--runner=DataflowRunner"]])
def test_what_needs_no_job_service_is_not_asked_for_one(given):
    require_engine(given, seconds=0)


@pytest.mark.parametrize("endpoint", ["the service", "embed"])
def test_a_pool_of_workers_that_is_not_there_is_named_with_what_to_do(endpoint, service):
    given = arguments(service if endpoint == "the service" else endpoint)
    with pytest.raises(BrokenInput, match=r"environment_config is '127\.0\.0\.1:1', where no pool of .*; start one in"):
        require_engine([*given, "--environment_config=127.0.0.1:1"], seconds=0.2)


# Java is not needed to get as far as these tests do.
JAVA = f"--job_server_java_launcher={sys.executable}"


def for_flink(master: str, *options: str) -> list[str]:
    return [*BeamOptions(runner="flink", master=master).pipeline_args(), *options]


@pytest.fixture
def jar(tmp_path) -> str:
    (tmp_path / "job-server.jar").touch()
    return str(tmp_path / "job-server.jar")


def test_what_a_cluster_needs_is_asked_for_in_turn(jar, silent_endpoint, tmp_path):
    with pytest.raises(BrokenInput, match=r"FlinkRunner, whose job server is a Java program, and 'no-java' is no"):
        require_engine(for_flink("127.0.0.1:1", "--job_server_java_launcher=no-java"))
    with pytest.raises(BrokenInput, match=r"not to be had .* name it as beam\.options\.flink_job_server_jar"):
        require_engine(for_flink(silent_endpoint, JAVA, f"--flink_job_server_jar={tmp_path}/none.jar"))
    with pytest.raises(BrokenInput, match=r"master of FlinkRunner is 'http://127\.0\.0\.1:1', where nothing answers"):
        require_engine(for_flink("127.0.0.1:1", JAVA, f"--flink_job_server_jar={jar}"))
    require_engine(for_flink(silent_endpoint, JAVA, f"--flink_job_server_jar={jar}"))
    require_engine(for_flink("[local]", JAVA, f"--flink_job_server_jar={jar}"))
    spark = BeamOptions(runner="spark", master="127.0.0.1:1").pipeline_args()
    with pytest.raises(BrokenInput, match=r"master of SparkRunner is 'spark://127\.0\.0\.1:1', where nothing answers"):
        require_engine([*spark, JAVA, f"--spark_job_server_jar={jar}"])


def test_a_run_says_so_before_it_loads_anything(config_file, tmp_path):
    rows = "a,bought\n" + "".join(f"{row},{'yes' if row % 2 else 'no'}\n" for row in range(40))
    beam = "beam={runner: PortableRunner, options: {job_endpoint: '127.0.0.1:1', environment_type: LOOPBACK}}"
    refused = ingraph("run", config_file(rows), "--workdir", str(tmp_path), "--set", beam)
    assert refused.status == 2, refused
    assert "stopped    beam.options.job_endpoint is '127.0.0.1:1', where no Beam job service answers" in refused.output
    assert "loading TFX" not in refused.output


STEPS = ("TableExampleGen", "ImageExampleGen", "ImportSchemaGen", "Transform")
SPLITS = ("eval", "train")
REVIEWS = ["a good film", "GOOD film, really!", "not a good film", "a bad film", "とても面白い映画", "面白い映画"]
TEXT_SCHEMA = """
feature { name: "review" type: BYTES }
feature { name: "opinion" type: BYTES }
"""


@pytest.fixture(scope="module")
def services(tmp_path_factory) -> Iterator[BeamServices]:
    apply_beam_speedups()  # here, as in every run, and not in the workers
    with beam_services(tmp_path_factory.mktemp("services")) as started:
        yield started


def test_a_worker_says_what_it_has_and_sees(services, tmp_path):
    seen, unseen = tmp_path / "seen", tmp_path / "unseen"
    seen.touch()
    trial = try_engine(services.options.pipeline_args(), tmp_path / "runs", [str(seen), str(unseen)])
    assert (trial.failure, trial.unseen, trial.shared) == ("", [str(unseen)], True)
    assert trial.versions == package_versions()
    assert trial.versions["apache-beam"] == apache_beam.__version__
    assert list((tmp_path / "runs").iterdir()) == []


def test_why_a_worker_did_not_come_is_told_in_a_line(services, tmp_path):
    refused = try_engine([*services.options.pipeline_args(), "--environment_config=localhost:1"], tmp_path, [])
    assert "failed to connect to all addresses" in refused.failure
    assert (refused.versions, refused.shared) == ({}, False)
    late = try_engine(services.options.pipeline_args(), tmp_path, [], seconds=0.1)
    assert late.failure == "no worker has answered within 0.1 s"


def test_doctor_names_versions_that_are_apart(config_file, tmp_path, monkeypatch):
    other = tmp_path / "other" / "ingraph-9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: ingraph\nVersion: 9.9\n")
    (tmp_path / "services").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(other.parent))
    with beam_services(tmp_path / "services") as services:
        monkeypatch.delenv("PYTHONPATH")
        file = config_file("a,bought\n1,yes\n2,no\n", f"beam: {json.dumps(services.options.model_dump())}\n")
        found = ingraph("doctor", "--json", "--beam", file, "--workdir", str(tmp_path))
    assert found.status == 1, found
    checks = {check["name"]: check for check in json.loads(found.output)["checks"]}
    assert [check["state"] for check in checks.values()] == ["ok", "problem", "ok"]
    assert f"with ingraph 9.9 instead of {metadata.version('ingraph')}" in checks["Beam worker"]["detail"]


# Beam's job service in Python, told what Flink's in Java would be told.
JOB_SERVER = f"""
import os, sys
from pathlib import Path
said, *given = sys.argv[1:]
with Path(said).open("a") as file:
    print(*given, "pid", os.getpid(), file=file)
port = given[given.index("--job-port") + 1]
os.execv(sys.executable, [sys.executable, "-c", {ON_LOOPBACK!r}, {JOB_SERVICE!r}, "--port", port])
"""


@pytest.fixture
def java(tmp_path) -> Path:
    """Starts what stands for Flink's job server, and writes what it is told, a line each time, into the file `said`."""
    program, java = tmp_path / "job_server.py", tmp_path / "java"
    program.write_text(JOB_SERVER)
    command = shlex.join([sys.executable, str(program), str(tmp_path / "said")])
    java.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    java.chmod(0o755)
    return java


def test_flink_is_handed_its_pipeline_by_beams_own_runner(config_file, services, silent_endpoint, jar, java, tmp_path):
    workers = {name: services.options.options[name] for name in ("environment_type", "environment_config")}
    options = {"job_server_java_launcher": str(java), "flink_job_server_jar": jar, **workers}
    beam = {"runner": "flink", "master": silent_endpoint, "options": options}
    file = config_file("a,bought\n1,yes\n2,no\n", f"beam: {json.dumps(beam)}\n")
    found = ingraph("doctor", "--beam", file, "--workdir", str(tmp_path / "runs"))
    assert found.status == 0, found
    assert [line.split()[:3] for line in found.output.splitlines()] == [
        ["ok", "Beam", "engine"], ["ok", "Beam", "worker"], ["ok", "Beam", "paths"],
    ]  # fmt: skip
    said = (tmp_path / "said").read_text()
    assert said.split()[:4] == ["-jar", jar, "--flink-master", f"http://{silent_endpoint}"]


def test_pipelines_of_a_process_share_a_job_server_and_threads_as_workers(silent_endpoint, jar, java, tmp_path):
    asked = for_flink(silent_endpoint, f"--job_server_java_launcher={java}", f"--flink_job_server_jar={jar}")
    assert "--environment_type=LOOPBACK" in asked
    reached = start_engine(asked)
    assert start_engine(asked) == reached and start_engine(reached) == reached
    assert (tmp_path / "said").read_text().count("--flink-master") == 1
    added = [argument.partition("=")[0] for argument in reached if argument not in asked]
    assert added == ["--job_endpoint", "--environment_type", "--environment_config"]
    assert not {*asked} - {*reached} - {"--environment_type=LOOPBACK"}

    for number in range(2):
        with apache_beam.Pipeline(argv=reached) as pipeline:
            where = pipeline | apache_beam.Create(range(3)) | apache_beam.Map(lambda row: f"{row} {os.getpid()}")
            _ = where | apache_beam.io.WriteToText(f"{tmp_path}/{number}")
        found = [line for file in tmp_path.glob(f"{number}-*") for line in file.read_text().splitlines()]
        assert sorted(found) == [f"{row} {os.getpid()}" for row in range(3)]

    os.kill(int((tmp_path / "said").read_text().split()[-1]), signal.SIGKILL)
    while (anew := start_engine(asked)) == reached:
        time.sleep(0.1)  # until the end of the connection is noticed
    assert (tmp_path / "said").read_text().count("--flink-master") == 2
    assert [argument for argument in anew if argument not in reached] == [anew[len(asked) - 1]]
    require_engine(anew)


class Control(beam_fn_api_pb2_grpc.BeamFnControlServicer):
    """A cluster's side of its worker: waits for what a worker says, until it goes."""

    def __init__(self) -> None:
        self.has_come, self.has_gone = threading.Event(), threading.Event()

    def Control(self, said, context):  # noqa: N802 (Beam's)
        self.has_come.set()
        for _ in said:
            pass
        self.has_gone.set()
        yield from ()


def test_a_cluster_worker_that_ends_its_own_does_not_end_those_of_another_with_its_number():
    pool = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(grpc.insecure_channel(beam_engine._start_workers()))
    sides, servers = [Control(), Control()], [grpc.server(ThreadPoolExecutor(2)) for _ in range(2)]
    for side, server in zip(sides, servers, strict=True):
        beam_fn_api_pb2_grpc.add_BeamFnControlServicer_to_server(side, server)
        endpoint = {"url": f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"}
        server.start()
        pool.StartWorker(beam_fn_api_pb2.StartWorkerRequest(worker_id="1-1", control_endpoint=endpoint))
        assert side.has_come.wait(30)
    pool.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id="1-1"))
    servers[0].stop(None).wait()
    assert not sides[1].has_gone.wait(1)
    servers[1].stop(None).wait()


@pytest.mark.parametrize("given", [["--runner=x"], ["--runner=FlinkRunner", "--flink_submit_uber_jar"]])
def test_what_has_no_job_server_starts_none(given, monkeypatch):
    monkeypatch.setattr(beam_engine, "require_engine", lambda arguments: None)
    assert start_engine(given) == given


def test_a_job_server_that_ends_as_it_begins_stops_the_run(silent_endpoint, jar, tmp_path):
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho no such class\nexit 3\n")
    java.chmod(0o755)
    asked = for_flink(silent_endpoint, f"--job_server_java_launcher={java}", f"--flink_job_server_jar={jar}")
    with pytest.raises(BrokenInput, match=r"job server of FlinkRunner, .* ended as it began: no such class; "):
        start_engine(asked)


def written(folder: Path, content: dict) -> RunConfig:
    """The config of a task, on data in the same folder."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"name": "portable", "evaluation": {"at_least": {"accuracy": 0.5}}} | content))
    return load_config(str(path), ())


def table(folder: Path) -> RunConfig:
    """Sixty rows with missing values, and every kind of column."""
    rows = [f"{row % 50 + 20},{row / 7 if row % 5 else ''},{'abc'[row % 3]},{row % 2}" for row in range(60)]
    (folder / "table.csv").write_text("\n".join(["age,income,city,bought", *rows, ""]))
    (folder / "schema.pbtxt").write_text("".join(
        f'feature {{ name: "{name}" type: {kind} }}'
        for name, kind in (("age", "INT"), ("income", "FLOAT"), ("city", "BYTES"), ("bought", "INT"))
    ))  # fmt: skip
    columns = {"age": {"kind": "quantiles", "buckets": 3}, "city": "categorical"}
    return written(
        folder,
        {
            "task": "tabular",
            "data": {"path": "table.csv", "schema_file": "schema.pbtxt"},
            "preprocessing": {
                "label": {"column": "bought", "names": {"1": "yes"}},
                "columns": columns,
                "crosses": [["age", "city"]],
            },
        },
    )


def texts(folder: Path) -> RunConfig:
    """Thirty sentences in two scripts, one of them of two lines, in a file with a header."""
    lines = [f'"{REVIEWS[row % 6]} {row}","{("fresh", "rotten")[row % 2]}"' for row in range(29)]
    (folder / "reviews.csv").write_text("\n".join(["review,opinion", *lines, '"two\nlines","fresh"', ""]))
    (folder / "schema.pbtxt").write_text(TEXT_SCHEMA)
    return written(
        folder,
        {
            "task": "text",
            "data": {"path": "reviews.csv", "schema_file": "schema.pbtxt", "eval_share": 0.4},
            "preprocessing": {
                "label": {"column": "opinion"},
                "column": "review",
                "character_ngrams": None,
                "vocabulary": "information_gain",
                "maximum_length": 40,
            },
        },
    )


def photos(folder: Path) -> RunConfig:
    """Twenty-four small photos in the folders of two splits, one of them in both."""
    random = np.random.default_rng(0)
    files = {
        f"{split}/{label}/{number}.png": tf.io.encode_png(random.integers(0, 256, [9, 7, 3], np.uint8)).numpy()
        for split, count in (("train", 8), ("val", 4))
        for label in ("rose", "tulip")
        for number in range(count)
    }
    files["train/rose/0.png"] = files["val/rose/0.png"]
    for name, content in files.items():
        (folder / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "photos" / name).write_bytes(content)
    return written(
        folder,
        {
            "task": "image",
            "data": {"path": "photos"},
            "preprocessing": {"height": 75, "width": 75},
            "trainer": {"mode": "fine_tune", "weights": "none"},
        },
    )


@dataclass(frozen=True)
class Output:
    """What the steps up to Transform have written."""

    examples: Path
    graph: tft.TFTransformOutput

    def records(self, split: str) -> list[bytes]:
        files = sorted(str(file) for file in (self.examples / f"Split-{split}").iterdir())
        read = tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator()
        # The order of the features within a record is another in each process.
        return sorted(tf.train.Example.FromString(record).SerializeToString(deterministic=True) for record in read)

    def vocabularies(self) -> dict[str, list[bytes]]:
        assets = Path(self.graph.transform_savedmodel_dir, "assets")
        return {file.name: file.read_bytes().splitlines() for file in assets.iterdir()}

    def statistics(self) -> dict[str, statistics_pb2.DatasetFeatureStatisticsList]:
        files = self.examples.parents[2].glob("StatisticsGen/statistics/*/Split-*/*")
        return {file.parent.name: load_stats_binary(str(file)) for file in files}

    def transformed(self, records: list[bytes]) -> dict[str, np.ndarray]:
        features = tf.io.parse_example(records, self.graph.raw_feature_spec())
        return {name: value.numpy() for name, value in self.graph.transform_features_layer()(features).items()}


def output(config: RunConfig, folder: Path, beam: BeamOptions) -> Output:
    """Run the pipeline's own steps, from the raw data to the graph of the preprocessing."""
    data = raw_data(config)
    locations = Locations(
        data=data.path,
        data_fingerprint=data.fingerprint,
        schema_file=schema_file(config),
        artifacts=str(folder / "artifacts"),
        metadata=str(folder / "metadata.sqlite"),
        base_path=str(folder / "models"),
    )
    pipeline = Compiler().compile(create_pipeline(config, locations, "run", start_engine(beam.pipeline_args())))
    steps = [node for node in pipeline.nodes if node.pipeline_node.node_info.id in STEPS]
    del pipeline.nodes[:]
    pipeline.nodes.extend(steps)
    LocalRunner("run", lambda step: None, lambda step, seconds: None).run_with_ir(pipeline)
    return of_run(folder)


def of_run(folder: Path) -> Output:
    (examples,), (graph,) = (
        (folder / "artifacts").glob(pattern) for pattern in ("*ExampleGen/examples/*", "Transform/transform_graph/*")
    )
    return Output(examples, tft.TFTransformOutput(str(graph)))


takes_long = pytest.mark.skipif("INGRAPH_LONG_TESTS" not in os.environ, reason="takes minutes; make portable runs it")


@pytest.mark.parametrize("data", [table, pytest.param(texts, marks=takes_long), photos])
def test_remote_workers_write_the_same_examples_and_compute_the_same_graph(data, services, tmp_path):
    config = data(tmp_path)
    here = output(config, tmp_path / "here", BeamOptions())
    workers = services.workers_started()

    remote = output(config, tmp_path / "remote", services.options)

    assert services.workers_started() == workers + 2  # one for the ExampleGen and one for Transform
    assert_same(remote, here)


def assert_same(remote: Output, here: Output) -> None:
    assert here.records("train") and here.records("eval")
    for split in SPLITS:
        assert remote.records(split) == here.records(split)
    report = here.examples / REPORT_FILE
    assert not report.exists() or (remote.examples / REPORT_FILE).read_bytes() == report.read_bytes()
    assert remote.vocabularies() == here.vocabularies()
    expected = here.transformed(here.records("train") + here.records("eval"))
    computed = remote.transformed(here.records("train") + here.records("eval"))
    assert computed.keys() == expected.keys()
    for name, values in expected.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(computed[name], values, rtol=1e-6, atol=1e-7)
        else:
            np.testing.assert_array_equal(computed[name], values)


takes_flink = pytest.mark.skipif("INGRAPH_FLINK" not in os.environ, reason="fetches Flink; make flink runs it")


@dataclass(frozen=True)
class Flink:
    """A cluster of two task managers.

    Attributes:
        cluster: the processes.
        beam: what a config says to use it.
    """

    cluster: FlinkCluster
    beam: BeamOptions

    def with_workers_of(self, services: BeamServices) -> BeamOptions:
        """Workers come from a pool instead of the process of the run; a pool can serve one task manager only."""
        workers = {name: services.options.options[name] for name in ("environment_type", "environment_config")}
        return self.beam.model_copy(update={"options": self.beam.options | workers | {"parallelism": 1}})


@pytest.fixture(scope="module")
def flink(tmp_path_factory) -> Iterator[Flink]:
    options = {"flink_job_server_jar": str(job_server("flink")), "parallelism": 2}
    with flink_cluster(tmp_path_factory.mktemp("flink")) as cluster:
        yield Flink(cluster, BeamOptions(runner="flink", master=f"127.0.0.1:{cluster.rest_port}", options=options))


@takes_flink
def test_workers_of_a_pool_do_for_flink_what_is_done_here(flink, services, tmp_path):
    config = table(tmp_path)
    remote = output(config, tmp_path / "remote", flink.with_workers_of(services))
    assert_same(remote, output(config, tmp_path / "here", BeamOptions()))


@takes_flink
@pytest.mark.parametrize("name", ["heart", "reviews", "digits"])
def test_a_run_on_flink_is_the_local_one(name, flink, tmp_path):
    told = f"beam={json.dumps(flink.beam.model_dump())}"
    before, started = len(flink.cluster.jobs()), time.monotonic()
    there = ingraph("run", f"configs/{name}.yaml", "--workdir", str(tmp_path / "there"), "--set", told, fresh=True)
    print(f"{name}: {time.monotonic() - started:.0f} s on Flink")
    assert there.status == 0, there
    jobs = flink.cluster.jobs()[before:]
    assert len(jobs) >= 3 and {job["state"] for job in jobs} == {"FINISHED"}
    assert [flink.cluster.failures(job["jid"]) for job in jobs] == [[]] * len(jobs)
    assert_same_as_a_local_run(name, there, tmp_path)


@takes_flink
def test_a_run_on_the_cluster_within_flinks_job_server_is_the_local_one(tmp_path):
    options = {"flink_job_server_jar": str(job_server("flink")), "parallelism": 2}
    told = f"beam={json.dumps({'runner': 'flink', 'master': '[local]', 'options': options})}"
    there = ingraph("run", "configs/heart.yaml", "--workdir", str(tmp_path / "there"), "--set", told, fresh=True)
    assert there.status == 0, there
    assert_same_as_a_local_run("heart", there, tmp_path)


def assert_same_as_a_local_run(name: str, there: Finished, folder: Path) -> None:
    started = time.monotonic()
    here = ingraph("run", f"configs/{name}.yaml", "--workdir", str(folder / "here"), fresh=True)
    print(f"{name}: {time.monotonic() - started:.0f} s here")
    assert here.status == 0, here
    remote, local = (of_run(folder / place / "runs" / name) for place in ("there", "here"))
    assert_same(remote, local)
    assert remote.statistics() == local.statistics()
    said = ("metrics", "evaluation", "serving", "REST", "gRPC")
    assert [line for line in there.output.splitlines() if line.startswith(said)] == [
        line for line in here.output.splitlines() if line.startswith(said)
    ]


@takes_flink
def test_a_task_manager_of_flink_that_is_killed_changes_nothing(flink, tmp_path):
    config, before, killed = texts(tmp_path), len(flink.cluster.jobs()), flink.cluster.task_managers[0]

    def transform() -> list[dict[str, Any]]:
        """Its job, once it is there: ExampleGen's comes first."""
        return flink.cluster.jobs()[before + 1 :]

    def kill_one_under_way() -> None:
        while not any(job["tasks"]["finished"] for job in transform()):
            time.sleep(0.1)
        killed.kill()

    with ThreadPoolExecutor(1) as thread:
        meanwhile = thread.submit(kill_one_under_way)
        remote = output(config, tmp_path / "remote", flink.beam)
        meanwhile.result(1)
    assert killed.wait(1) == -signal.SIGKILL
    (job,) = transform()
    assert flink.cluster.failures(job["jid"]) and job["state"] == "FINISHED"
    assert_same(remote, output(config, tmp_path / "here", BeamOptions()))


takes_spark = pytest.mark.skipif("INGRAPH_SPARK" not in os.environ, reason="fetches Spark; make spark runs it")


@takes_spark
@pytest.mark.parametrize("is_standalone", [True, False], ids=["standalone", "local"])
def test_a_run_on_spark_is_the_local_one(is_standalone, tmp_path):
    (tmp_path / "spark").mkdir()
    with spark_cluster(tmp_path / "spark") if is_standalone else nullcontext("local[2]") as master:
        options = {"spark_job_server_jar": str(job_server("spark"))}
        told = f"beam={json.dumps({'runner': 'spark', 'master': master, 'options': options})}"
        started = time.monotonic()
        there = ingraph("run", "configs/heart.yaml", "--workdir", str(tmp_path / "there"), "--set", told, fresh=True)
        print(f"heart: {time.monotonic() - started:.0f} s on Spark")
    assert there.status == 0, there
    assert_same_as_a_local_run("heart", there, tmp_path)
