"""Schedules on Kubeflow Pipelines and Vertex AI: their own clients and types, and stand-ins for the services."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result
from google.auth.credentials import AnonymousCredentials
from google.cloud.aiplatform_v1 import ScheduleServiceClient
from google.cloud.aiplatform_v1.services.schedule_service.transports import ScheduleServiceGrpcTransport
from google.cloud.aiplatform_v1.types import (
    CreateScheduleRequest,
    DeleteScheduleRequest,
    ListSchedulesRequest,
    ListSchedulesResponse,
    Schedule,
    UpdateScheduleRequest,
)
from google.longrunning.operations_pb2 import Operation
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty

from components.errors import BrokenInput
from pipeline.cli import main
from pipeline.exit_status import ExitStatus
from pipeline.options import ClusterOptions, ScheduleOptions
from pipeline.runners.compile import RunRequest
from pipeline.schedules.cluster import apply_to_vertex, recurring_run, remove_from_vertex, vertex_schedule
from tests.pipeline.conftest import PROJECT

PARENT = "projects/p/locations/europe-west4"


@pytest.fixture(scope="module")
def spec_file(tmp_path_factory) -> str:
    """The compiled pipeline of the demo tables."""
    path = tmp_path_factory.mktemp("compiled") / "heart.json"
    cluster = ["--set", "cluster.image=registry/ingraph:1", "--set", "cluster.pipeline_root=gs://bucket/ingraph"]
    config = f"{PROJECT}/configs/heart.yaml"
    arguments = ["compile", config, "--target", "vertex", "-o", str(path), "--workdir", str(path.parent), *cluster]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    return str(path)


def request(spec_file: str, **cluster: Any) -> RunRequest:
    options = {"project": "p", "region": "europe-west4", "pipeline_root": "gs://bucket/ingraph"}
    given = ClusterOptions(**{**options, "service_account": "trainer@p.example", **cluster})
    return RunRequest(spec_file, "ingraph-heart", {}, given)


def options(**given: Any) -> ScheduleOptions:
    return ScheduleOptions.model_validate({"cron": "0 3 * * mon-fri", "time_zone": "Europe/Berlin", **given})


WINDOW = {"start": "2999-07-01", "end": "2999-07-31"}


def test_the_schedule_of_vertex_has_every_field(spec_file):
    schedule = vertex_schedule(request(spec_file), options(window=WINDOW, overlap="queue"), AnonymousCredentials())
    assert schedule.display_name == "ingraph-heart"
    assert schedule.cron == "TZ=Europe/Berlin 0 3 * * 1-5"
    assert schedule.max_concurrent_run_count == 1
    assert schedule.allow_queueing is True
    # In summer Berlin is two hours ahead of UTC; a run on the first second of the window is within it.
    assert schedule.start_time == datetime(2999, 6, 30, 21, 59, 59, tzinfo=UTC)
    assert schedule.end_time == datetime(2999, 7, 31, 21, 59, 59, tzinfo=UTC)
    assert schedule.create_pipeline_job_request.parent == PARENT
    job = schedule.create_pipeline_job_request.pipeline_job
    assert job.pipeline_spec["pipelineInfo"]["name"] == "heart"
    assert len(job.pipeline_spec["root"]["dag"]["tasks"]) > 5
    assert job.runtime_config.gcs_output_directory == "gs://bucket/ingraph"
    assert job.service_account == "trainer@p.example"


def test_an_open_window_and_skipping_leave_fields_out(spec_file):
    schedule = vertex_schedule(request(spec_file), options(window={"start": "2020-01-01"}), AnonymousCredentials())
    assert schedule.allow_queueing is False
    assert not schedule.start_time and not schedule.end_time  # a start in the past is none


class ScheduleService:
    """Stands in for Vertex AI's schedules: keeps them as the real client sends them."""

    def __init__(self) -> None:
        self.schedules: dict[str, Schedule] = {}
        self.calls: list[str] = []

    def handlers(self) -> grpc.GenericRpcHandler:
        calls = {
            "CreateSchedule": (self.create, CreateScheduleRequest, Schedule.serialize),
            "ListSchedules": (self.list, ListSchedulesRequest, ListSchedulesResponse.serialize),
            "UpdateSchedule": (self.update, UpdateScheduleRequest, Schedule.serialize),
            "DeleteSchedule": (self.delete, DeleteScheduleRequest, Operation.SerializeToString),
        }
        return grpc.method_handlers_generic_handler(
            "google.cloud.aiplatform.v1.ScheduleService",
            {
                name: grpc.unary_unary_rpc_method_handler(function, kind.deserialize, answer)
                for name, (function, kind, answer) in calls.items()
            },
        )

    def create(self, asked: CreateScheduleRequest, _: Any) -> Schedule:
        name = f"{asked.parent}/schedules/{len(self.calls) + 1}"
        self.calls.append(f"create {name.rpartition('/')[2]}")
        self.schedules[name] = Schedule(asked.schedule, name=name)
        return self.schedules[name]

    def list(self, asked: ListSchedulesRequest, _: Any) -> ListSchedulesResponse:
        name = re.fullmatch('display_name="(.*)"', asked.filter)[1]
        return ListSchedulesResponse(schedules=[one for one in self.schedules.values() if one.display_name == name])

    def update(self, asked: UpdateScheduleRequest, _: Any) -> Schedule:
        kept = self.schedules[asked.schedule.name]
        assert "create_pipeline_job_request" not in asked.update_mask.paths
        self.calls.append(f"update {kept.name.rpartition('/')[2]}")
        for path in asked.update_mask.paths:
            setattr(kept, path, getattr(asked.schedule, path))
        return kept

    def delete(self, asked: DeleteScheduleRequest, _: Any) -> Operation:
        del self.schedules[asked.name]
        self.calls.append(f"delete {asked.name.rpartition('/')[2]}")
        done = AnyMessage()
        done.Pack(Empty())
        return Operation(name="operations/1", done=True, response=done)


@pytest.fixture
def vertex():
    service = ScheduleService()
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers([service.handlers()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    yield service, ScheduleServiceClient(transport=ScheduleServiceGrpcTransport(channel=channel))
    channel.close()
    server.stop(None).wait()


def test_vertex_s_schedule_is_changed_in_place_unless_its_pipeline_changed(vertex, spec_file, tmp_path):
    service, client = vertex
    anonymous = AnonymousCredentials()
    other = Schedule(vertex_schedule(request(spec_file), options(), anonymous), display_name="ingraph-heart-2")
    first = apply_to_vertex(vertex_schedule(request(spec_file), options(), anonymous), client)
    apply_to_vertex(other, client)
    moved = vertex_schedule(request(spec_file), options(cron="0 5 * * *", overlap="queue"), anonymous)
    assert apply_to_vertex(moved, client) == first
    kept = service.schedules[first]
    assert (kept.cron, kept.allow_queueing) == ("TZ=Europe/Berlin 0 5 * * *", True)
    assert kept.create_pipeline_job_request.pipeline_job.pipeline_spec["pipelineInfo"]["name"] == "heart"
    changed = Path(tmp_path, "heart.json")
    changed.write_text(Path(spec_file).read_text(encoding="utf-8").replace("ingraph:1", "ingraph:2"), encoding="utf-8")
    second = apply_to_vertex(vertex_schedule(request(str(changed)), options(), anonymous), client)
    assert service.calls == ["create 1", "create 2", "update 1", "create 4", "delete 1"]
    assert sorted(service.schedules) == [f"{PARENT}/schedules/2", second]
    assert remove_from_vertex(client, PARENT, "ingraph-heart") == 1
    assert [one.display_name for one in service.schedules.values()] == ["ingraph-heart-2"]


@pytest.mark.parametrize("missing", ["project", "region"])
def test_vertex_needs_a_project_and_a_region(missing, spec_file):
    with pytest.raises(BrokenInput, match=f"cluster.{missing} is missing"):
        vertex_schedule(request(spec_file, **{missing: None}), options(), AnonymousCredentials())


def test_a_region_that_vertex_does_not_have_is_named(spec_file):
    with pytest.raises(BrokenInput, match=r"does not take the pipeline .* Unsupported region"):
        vertex_schedule(request(spec_file, region="europe-west99"), options(), AnonymousCredentials())


def schedule(command: str, folder: Path, *overrides: str) -> Result:
    settings = ["cluster.image=registry/ingraph:1", f"cluster.pipeline_root={folder}/artifacts", *overrides]
    arguments = ["schedule", command, f"{PROJECT}/configs/heart.yaml", "--target", "kubeflow", "--workdir", str(folder)]
    return CliRunner().invoke(main, [*arguments, *(part for setting in settings for part in ("--set", setting))])


def test_kubeflow_s_client_sends_the_recurring_run_in_place_of_the_one_before(pipelines_api, tmp_path):
    cluster = [f"cluster.host={pipelines_api.address}", "cluster.service_account=trainer"]
    times = ["schedule.cron=0 3 * * sun,mon", "schedule.window={start: 2027-01-01, end: 2027-01-31}"]
    assert schedule("remove", tmp_path, *cluster, *times).stdout == "removed 0 recurring runs of ingraph-heart\n"
    pipelines_api.recurring_runs["other"] = {"recurring_run_id": "other", "display_name": "ingraph-heart-2"}
    assert schedule("apply", tmp_path, *cluster, "schedule.cron=0 1 * * *").exit_code == 0
    applied = schedule("apply", tmp_path, *cluster, *times)
    assert f"scheduled {pipelines_api.address}/#/recurringrun/details/r3" in applied.stdout
    assert sorted(pipelines_api.recurring_runs) == ["other", "r3"]
    sent = pipelines_api.recurring_runs["r3"]
    assert sent["display_name"] == "ingraph-heart"
    assert sent["experiment_id"] == "e1"
    assert sent["trigger"]["cron_schedule"] == {
        "cron": "0 0 3 * * 0-1",
        "start_time": "2026-12-31T23:59:59Z",
        "end_time": "2027-01-31T23:59:59Z",
    }
    assert (sent["max_concurrency"], sent["no_catchup"], sent["mode"]) == (1, True, "ENABLE")
    assert sent["service_account"] == "trainer"
    assert sent["runtime_config"]["pipeline_root"] == f"{tmp_path}/artifacts"
    spec = sent["pipeline_spec"].get("pipeline_spec", sent["pipeline_spec"])
    assert spec["pipelineInfo"]["name"] == "heart"
    # What every run reads was copied there.
    (data,) = re.findall(r"every run reads (\S+\.csv), a copy of", applied.stdout)
    assert Path(data).read_text(encoding="utf-8").startswith("age,")
    assert schedule("remove", tmp_path, *cluster, *times).stdout == "removed 1 recurring runs of ingraph-heart\n"
    assert sorted(pipelines_api.recurring_runs) == ["other"]


def test_catching_up_on_all_runs_is_kubeflow_s_catch_up(spec_file):
    made = recurring_run(request(spec_file), options(time_zone="UTC", catch_up="all"), "e1")
    assert made["no_catchup"] is False
    assert (made["start_time"], made["end_time"]) == (None, None)


def test_another_zone_than_that_of_the_installation_is_refused(spec_file):
    with pytest.raises(BrokenInput, match=r"cron expression in one zone, here UTC: .* CRON_SCHEDULE_TIMEZONE"):
        recurring_run(request(spec_file), options(), "e1")
    made = recurring_run(request(spec_file), options(kubeflow_time_zone="Europe/Berlin"), "e1")
    assert made["cron_expression"] == "0 0 3 * * 1-5"


def test_a_pipelines_api_that_cannot_be_reached_is_named(tmp_path):
    failed = schedule("apply", tmp_path, "cluster.host=http://127.0.0.1:1", "schedule.cron=0 3 * * *")
    assert failed.exit_code == ExitStatus.NOT_SUBMITTED
    assert "http://127.0.0.1:1: Kubeflow Pipelines did not take the change" in failed.stderr


def test_what_would_be_sent_is_shown_and_nothing_copied(tmp_path):
    shown = schedule("show", tmp_path, "schedule.cron=0 3 * * *")
    assert '"cron_expression": "0 0 3 * * *"' in shown.stdout
    assert f"publishes into {tmp_path}/artifacts/models/heart" in shown.stdout
    assert not (tmp_path / "artifacts").exists()


def test_what_vertex_would_be_sent_is_shown(tmp_path):
    cluster = "cluster={image: i, pipeline_root: gs://b/r, project: p, region: europe-west4}"
    arguments = ["schedule", "show", f"{PROJECT}/configs/heart.yaml", "--target", "vertex", "--workdir", str(tmp_path)]
    shown = CliRunner().invoke(main, [*arguments, "--set", cluster, "--set", "schedule.cron=0 3 * * *"])
    sent, _, told = shown.stdout.partition("\npublishes into ")
    assert json.loads(sent)["cron"] == "TZ=UTC 0 3 * * *"
    assert told.startswith("gs://b/r/models/heart\nevery run reads gs://b/r/data/")
