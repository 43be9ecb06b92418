"""Compiled pipelines: their specs, and a rehearsal of one."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.auth.credentials import AnonymousCredentials
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from components.errors import BrokenInput, NotSubmitted
from pipeline import demo_data
from pipeline.config import load_config
from pipeline.options import ClusterOptions
from pipeline.runners.compile import RunRequest, cluster_name, cluster_pipeline, write_job
from pipeline.runners.kubeflow import submit_to_kubeflow
from pipeline.runners.rehearsal import rehearse_spec
from pipeline.runners.vertex import pipeline_job
from serving.client.rest import RestClient
from serving.model_store import list_versions, verify
from serving.server.app import EmbeddedServer
from serving.server.config import RequestLogOptions
from serving.server.options import ServerOptions
from serving.session_model import SessionModel
from serving.signatures.common import VOCABULARY
from tests.pipeline.conftest import PROJECT, Finished, ingraph, page_of, table, words

CLUSTER = ["cluster.image=registry/ingraph:1", "cluster.pipeline_root=gs://bucket/ingraph"]
DEMOS = ["heart", "reviews", "digits"]


def compiled(name: str, folder: Path, *overrides: str, target: Any = "kubeflow") -> Any:
    return cluster_pipeline(load_config(f"{PROJECT}/configs/{name}.yaml", [*CLUSTER, *overrides]), target, folder)


def spec_of(job: dict[str, Any]) -> pipeline_spec_pb2.PipelineSpec:
    return json_format.ParseDict(job["pipelineSpec"], pipeline_spec_pb2.PipelineSpec())


@pytest.mark.parametrize("target", ["kubeflow", "vertex"])
@pytest.mark.parametrize("name", DEMOS)
def test_every_demo_compiles_to_a_pipeline_spec(name, target, tmp_path):
    job = compiled(name, tmp_path, target=target).job
    spec = spec_of(job)
    assert spec.schema_version == "2.1.0"
    assert spec.pipeline_info.name == name
    assert job["runtimeConfig"]["gcsOutputDirectory"] == "gs://bucket/ingraph"
    assert list(spec.root.dag.tasks["ServingPusher"].dependent_tasks) == ["Evaluator", "ServingCheck", "Trainer"]


def test_no_step_is_a_resolver_and_each_runs_our_entry_point_in_the_image(tmp_path):
    executors = compiled("heart", tmp_path).job["pipelineSpec"]["deploymentSpec"]["executors"]
    for executor in executors.values():
        assert list(executor) == ["container"]
        assert executor["container"]["image"] == "registry/ingraph:1"
        assert executor["container"]["command"] == ["python", "-m", "pipeline.container_main"]


def test_what_looks_at_the_model_base_path_is_never_cached(tmp_path):
    tasks = spec_of(compiled("heart", tmp_path).job).root.dag.tasks
    cached = {name: task.caching_options.enable_cache for name, task in tasks.items()}
    assert not any(cached.pop(name) for name in ("Baseline", "ServingPusher", "RunReport"))
    assert all(cached.values())
    assert (
        tasks["Baseline"].inputs.parameters["run_id"].runtime_value.constant.string_value == "{{$.pipeline_job_uuid}}"
    )


def test_requests_are_replayed_where_logs_are_configured_before_anything_is_published(tmp_path):
    tasks = spec_of(compiled("heart", tmp_path).job).root.dag.tasks
    assert "ReplayGate" not in tasks
    replay = "evaluation.replay={logs: 'gs://bucket/logs/heart-*', may_flip: 0.01}"
    tasks = spec_of(compiled("heart", tmp_path, replay).job).root.dag.tasks
    assert set(tasks["ReplayGate"].dependent_tasks) == {"Trainer", "Baseline", "Evaluator", "ServingCheck"}
    assert not tasks["ReplayGate"].caching_options.enable_cache
    assert "ReplayGate" in tasks["ServingPusher"].dependent_tasks
    options = tasks["ReplayGate"].inputs.parameters["options"].runtime_value.constant.string_value
    assert '"logs":["gs://bucket/logs/heart-*"],"may_flip":0.01' in options
    # Logs have the name by which the model is served, which a cluster may not take for its pipeline.
    spec = spec_of(compiled("heart", tmp_path, replay, "name=My_Heart").job)
    assert spec.pipeline_info.name == "my-heart"
    for step in ("ReplayGate", "ServingPusher"):
        name = spec.root.dag.tasks[step].inputs.parameters["model_name"].runtime_value.constant.string_value
        assert name == "My_Heart"


@pytest.mark.parametrize("root", ["gs://bucket/ingraph", "/mnt/shared/ingraph"])
def test_request_logs_that_no_step_of_a_cluster_could_see_are_refused(root, tmp_path):
    replay = "evaluation.replay={logs: [/mnt/shared/ingraph/../logs/heart-*]}"
    refused = r"^evaluation\.replay\.logs is /mnt/shared/.*: request logs of this machine are not copied to a cluster"
    with pytest.raises(BrokenInput, match=refused):
        compiled("heart", tmp_path, replay, f"cluster.pipeline_root={root}")


def test_data_and_schema_of_this_machine_are_staged_under_names_of_their_content(tmp_path):
    pipeline = compiled("heart", tmp_path)
    data, schema = pipeline.staged
    assert data.remote.startswith("gs://bucket/ingraph/data/") and data.remote.endswith("/hearts.csv")
    assert schema.remote.startswith("gs://bucket/ingraph/schemas/")
    spec = spec_of(pipeline.job)
    assert spec.root.input_definitions.parameters["data"].default_value.string_value == data.remote.rpartition("/")[0]
    task = spec.root.dag.tasks["TableExampleGen"]
    assert task.inputs.parameters["input_base"].component_input_parameter == "data"
    assert pipeline.base_path == "gs://bucket/ingraph/models/heart"


def test_staging_copies_a_folder_once(tmp_path):
    root = tmp_path / "root"
    pipeline = compiled("digits", tmp_path, f"cluster.pipeline_root={root}")
    photos = pipeline.staged[0]
    photos.copy()
    copies = sorted(Path(photos.remote).rglob("*.png"))
    assert len(copies) == 1797
    first = copies[0]
    assert first.read_bytes() == (Path(photos.local) / first.relative_to(photos.remote)).read_bytes()
    first.write_bytes(b"as it was left")
    photos.copy()
    assert first.read_bytes() == b"as it was left"
    assert not list(Path(photos.remote).rglob("*.part"))


def test_resources_reach_the_container_of_their_step(tmp_path):
    resources = "cluster.resources={Trainer: {cpu: 4, memory: 16, accelerator: {type: NVIDIA_TESLA_T4, count: 2}}}"
    executors = compiled("heart", tmp_path, resources).job["pipelineSpec"]["deploymentSpec"]["executors"]
    given = executors["Trainer_executor"]["container"]["resources"]
    assert (given["cpuLimit"], given["memoryLimit"]) == (4, 16)
    assert given["accelerator"] == {"type": "NVIDIA_TESLA_T4", "count": "2"}
    assert "resources" not in executors["Transform_executor"]["container"]


def test_beam_options_reach_every_step_and_remote_workers_get_the_image(tmp_path):
    beam = "beam={runner: DataflowRunner, options: {project: p, experiments: [a, b], streaming: false}}"
    executors = compiled("heart", tmp_path, beam).job["pipelineSpec"]["deploymentSpec"]["executors"]
    arguments = executors["Transform_executor"]["container"]["args"]
    assert arguments[-5:] == [
        "--runner=DataflowRunner",
        "--project=p",
        "--experiments=a",
        "--experiments=b",
        "--sdk_container_image=registry/ingraph:1",
    ]


@pytest.mark.parametrize(
    ("overrides", "target", "named"),
    [
        (["cluster.image=null"], "kubeflow", "cluster.image is missing"),
        (["cluster.pipeline_root=null"], "kubeflow", "cluster.pipeline_root is missing"),
        (["cluster.pipeline_root=/tmp/x"], "vertex", "'/tmp/x'; Vertex AI needs a folder of Cloud Storage"),
        (
            ["push.signing_key=key.pem"],
            "kubeflow",
            "mount the key into .* the environment variable INGRAPH_SIGNING_KEY",
        ),
        (["cluster.resources={Trainner: {cpu: 1}}"], "kubeflow", "there is no such step; the steps are"),
        (["cluster.resources={Trainer: {workers: 2}}"], "vertex", "Trainer: .*gives each step one container"),
    ],
)
def test_what_is_missing_or_wrong_is_named(overrides, target, named, tmp_path):
    with pytest.raises(BrokenInput, match=named):
        compiled("heart", tmp_path, *overrides, target=target)


def test_names_become_what_both_backends_take():
    assert cluster_name("My_Model-2") == "my-model-2"


def request(folder: Path, ending: str, **cluster: Any) -> RunRequest:
    path = str(folder / f"heart{ending}")
    write_job(compiled("heart", folder).job, path)
    options = {"pipeline_root": "gs://bucket/ingraph", "service_account": "trainer@p.example", **cluster}
    return RunRequest(path, "heart", {"data": "gs://bucket/new"}, ClusterOptions(**options))


def test_the_request_to_vertex_has_every_field(tmp_path):
    job = pipeline_job(request(tmp_path, ".json", project="p", region="europe-west4"), AnonymousCredentials())
    resource = job._gca_resource
    assert resource.display_name == "heart"
    assert resource.pipeline_spec["pipelineInfo"]["name"] == "heart"
    assert resource.runtime_config.gcs_output_directory == "gs://bucket/ingraph"
    assert dict(resource.runtime_config.parameter_values) == {"data": "gs://bucket/new"}
    assert (job.project, job.location) == ("p", "europe-west4")


@pytest.mark.parametrize("missing", ["project", "region"])
def test_vertex_needs_a_project_and_a_region(missing, tmp_path):
    given = {"project": "p", "region": "europe-west4"} | {missing: None}
    with pytest.raises(BrokenInput, match=f"cluster.{missing} is missing"):
        pipeline_job(request(tmp_path, ".json", **given), AnonymousCredentials())


def test_a_region_that_vertex_does_not_have_is_named(tmp_path):
    asked = request(tmp_path, ".json", project="p", region="europe-west99")
    with pytest.raises(BrokenInput, match=r"does not take the pipeline .* Unsupported region"):
        pipeline_job(asked, AnonymousCredentials())


def test_kubeflow_s_client_sends_the_spec_the_parameters_and_the_service_account(pipelines_api, tmp_path):
    asked = request(tmp_path, ".yaml", host=pipelines_api.address)
    assert submit_to_kubeflow(asked) == f"{pipelines_api.address}/#/runs/details/r1"
    (sent,) = pipelines_api.runs
    assert sent["display_name"] == "heart"
    assert sent["service_account"] == "trainer@p.example"
    assert sent["runtime_config"]["parameters"] == {"data": "gs://bucket/new"}
    assert sent["runtime_config"]["pipeline_root"] == "gs://bucket/ingraph"
    spec = yaml.safe_load(Path(asked.spec_file).read_text(encoding="utf-8"))
    assert sent["pipeline_spec"].get("pipeline_spec", sent["pipeline_spec"]) == spec


def test_a_pipelines_api_that_cannot_be_reached_is_named(tmp_path):
    with pytest.raises(NotSubmitted, match=r"http://127\.0\.0\.1:1: Kubeflow Pipelines did not take the run"):
        submit_to_kubeflow(request(tmp_path, ".yaml", host="http://127.0.0.1:1"))


def test_a_host_has_to_be_given(tmp_path):
    with pytest.raises(BrokenInput, match=r"cluster\.host is missing"):
        submit_to_kubeflow(request(tmp_path, ".yaml"))


def test_the_ending_of_the_file_decides_about_its_form(tmp_path):
    job = compiled("heart", tmp_path).job
    for ending, key in ((".json", "pipelineSpec"), (".yaml", "root")):
        write_job(job, str(tmp_path / f"spec{ending}"))
        assert key in yaml.safe_load((tmp_path / f"spec{ending}").read_text(encoding="utf-8"))
    with pytest.raises(BrokenInput, match=r"expected a name that ends in \.json"):
        write_job(job, str(tmp_path / "spec.txt"))


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    """The compiled heart pipeline, with everything below one folder of this machine."""
    folder = tmp_path_factory.mktemp("rehearsal")
    compiled = ingraph(
        "compile",
        "configs/heart.yaml",
        *("--target", "kubeflow", "-o", f"{folder}/heart.yaml", "--stage", "--workdir", str(folder)),
        *("--set", "cluster.image=unused", "--set", f"cluster.pipeline_root={folder}/shared"),
        *("--set", f"evaluation.replay={{logs: {folder}/shared/logs/heart-*}}"),
    )
    assert compiled.status == 0, compiled.errors
    assert compiled.output.splitlines()[:2] == [
        f"{folder}/heart.yaml: 13 steps, for kubeflow",
        f"publishes into {folder}/shared/models/heart",
    ]
    return folder / "heart.yaml"


def patients() -> dict[str, list[Any]]:
    """The columns of the demo's 303 rows."""
    with demo_data.fetch("hearts").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        name: [value if name == "thal" else float(value) if name == "oldpeak" else int(value) for value in values]
        for name in rows[0]
        if name != "target"
        for values in [[row[name] for row in rows]]
    }


def served_examples(base_path) -> SessionModel:
    (version,) = list_versions(str(base_path))
    assert verify(version) == []
    return SessionModel(version.path)


@pytest.fixture(scope="module")
def rehearsed(spec) -> Finished:
    """The rehearsal of it; nothing is published before."""
    finished = ingraph("rehearse", str(spec), "--root", str(spec.parent / "shared"))
    assert finished.status == 0, finished.output
    return finished


def test_every_step_s_command_runs_and_the_published_model_answers_as_that_of_a_local_run(spec, rehearsed, heart_run):
    steps = [line.split()[0] for line in rehearsed.output.splitlines() if line.startswith("  ")]
    assert (
        steps.index("TableExampleGen")
        < steps.index("Transform")
        < steps.index("Trainer")
        < steps.index("ReplayGate")
        < steps.index("ServingPusher")
    )
    assert "ServingPusher: published as version 1" in rehearsed.output
    page = page_of(rehearsed.output.splitlines()[-1].removeprefix("report     "))
    assert "The new model may go live. All 4 gates passed. Published as version 1." in words(page)
    assert table(page, "Metrics, with")["accuracy"][0].startswith("0.")
    lineage = table(page, "The model served when this report was made")
    assert (lineage["version"], lineage["lies in"]) == (["1"], [f"{spec.parent}/shared/models/heart/1"])

    local, compiled = served_examples(heart_run.base_path), served_examples(spec.parent / "shared/models/heart")
    columns = patients()
    here, there = local.run("classify", columns), compiled.run("classify", columns)
    assert here["labels"].tolist() == there["labels"].tolist()
    assert here["probabilities"] == pytest.approx(there["probabilities"], abs=1e-6)


def test_a_step_replays_the_logs_and_only_a_model_that_answers_as_the_served_one_is_published(spec, rehearsed):
    shared = spec.parent / "shared"
    reported = {}
    for file in shared.glob("*/*/executor_output.json"):
        reported[file.parent.name] = json_format.Parse(file.read_text(), pipeline_spec_pb2.ExecutorOutput())
    replayed = reported["ReplayGate"].artifacts["blessing"].artifacts[0].metadata.fields
    assert replayed["remark"].string_value == "not replayed: nothing was served before"

    log = RequestLogOptions(str(shared / "logs/heart"), 1.0)
    (shared / "logs").mkdir()
    with (
        EmbeddedServer({"heart": f"{shared}/models/heart"}, ServerOptions(rest_port=0, request_log=log)) as server,
        RestClient(port=server.rest_port) as rest,
    ):
        rest.predict("heart", patients())
    # The other model calls the ill healthy, and the healthy ill.
    model = reported["Trainer"].artifacts["model"].artifacts[0]
    shutil.copytree(model.uri, shared / "contrary")
    (vocabulary,) = (shared / "contrary/Format-Serving/assets").glob(f"{VOCABULARY}*")
    vocabulary.write_text("".join(reversed(vocabulary.read_text().splitlines(keepends=True))))

    again = {name: output for name, output in reported.items() if name not in ("Baseline", "ReplayGate")}
    published = again.pop("ServingPusher")
    found = []
    for uri in (model.uri, str(shared / "contrary")):
        again["Trainer"].artifacts["model"].artifacts[0].uri = uri
        kept = {"ServingPusher": published} if not found else {}
        outputs = rehearse_spec(str(spec), shared / "later", reported=again | kept)
        found.append(outputs["ReplayGate"].artifacts["blessing"].artifacts[0].metadata.fields)
    equal, contrary = found
    assert (equal["blessed"].number_value, contrary["blessed"].number_value) == (1, 0)
    assert equal["remark"].string_value == "303 logged rows replayed"
    reason = contrary["reason"].string_value
    assert re.match(
        r"303 of 303 logged rows \(100\.00%, .* would be answered otherwise, expected at most 2\.00%", reason
    )
    pushed = outputs["ServingPusher"].artifacts["pushed_model"].artifacts[0].metadata.fields
    assert (pushed["pushed"].number_value, len(list_versions(f"{shared}/models/heart"))) == (0, 1)
    assert "logged rows" in pushed["reason"].string_value


def test_a_step_that_cannot_go_on_is_named_with_its_reason_and_log(spec, tmp_path):
    failed = ingraph("rehearse", str(spec), "--root", str(tmp_path), "--parameter", f"data={tmp_path}/nothing")
    assert failed.status != 0
    assert "stopped    TableExampleGen failed:" in failed.output
    assert f"{tmp_path}" in failed.output and "log.txt" in failed.output


def test_what_is_no_compiled_pipeline_is_refused(tmp_path):
    (tmp_path / "other.yaml").write_text("- a list\n")
    refused = ingraph("rehearse", str(tmp_path / "other.yaml"), "--root", str(tmp_path))
    assert refused.status == 2
    assert "other.yaml: not a compiled pipeline; `ingraph compile` writes one" in refused.output
