"""Recurring runs on Kubeflow Pipelines, and schedules on Vertex AI Pipelines.

Both run the compiled pipeline, not `ingraph retrain`: spans are resolved when the schedule is applied.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from google.auth.credentials import AnonymousCredentials

from components.errors import BrokenInput
from pipeline.options import ClusterOptions, ScheduleOptions
from pipeline.runners.compile import RunRequest, cluster_pipeline, write_job
from pipeline.runners.kubeflow import kubeflow_client
from pipeline.runners.vertex import pipeline_job, vertex_credentials, vertex_location
from pipeline.schedules.targets import ScheduleRequest, ScheduleTarget
from serving.loading import quiet_output

if TYPE_CHECKING:
    import kfp
    from google.cloud.aiplatform_v1 import ScheduleServiceClient
    from google.cloud.aiplatform_v1.types import Schedule

_SPEC_SUFFIXES = {"kubeflow": ".yaml", "vertex": ".json"}
_LIST_PAGE_SIZE = 100
# What Vertex AI changes of a schedule in place.
_UPDATABLE_FIELDS = ("cron", "start_time", "end_time", "max_concurrent_run_count", "allow_queueing")


@contextmanager
def _compiled_pipeline(
    request: ScheduleRequest, target: Literal["kubeflow", "vertex"], *, stage: bool
) -> Iterator[tuple[RunRequest, str]]:
    """Compile a config to a file that is there for as long as the context; with it, lines that say what runs read.

    Args:
        request: whose config.
        target: what is going to run it.
        stage: whether to copy the files of this machine that runs need.

    Raises:
        RunStopped: the data cannot be used, or the config does not say enough about the cluster.
    """
    config, workdir = request.config, request.scheduled.workdir
    with tempfile.TemporaryDirectory() as folder:
        with quiet_output(Path(os.devnull)):
            compiled = cluster_pipeline(config, target, Path(workdir, config.runs, config.name, "data"))
            file = str(Path(folder, f"{config.name}{_SPEC_SUFFIXES[target]}"))
            write_job(compiled.job, file)
            for staged in compiled.staged if stage else []:
                staged.copy()
        lines = [f"publishes into {compiled.base_path}"]
        lines += [f"every run reads {file.remote}, a copy of {file.local} as it is now" for file in compiled.staged]
        yield RunRequest(file, request.scheduled.schedule_name, {}, config.cluster), "\n".join(lines)


def recurring_run(request: RunRequest, options: ScheduleOptions, experiment_id: str) -> dict[str, Any]:
    """The arguments of kfp.Client.create_recurring_run.

    Kubeflow's cron has a field for seconds first. It looks for the time after `start_time`, so that a run that is due
    when the window opens needs a start before it. One run at a time; without catch-up the latest missed run is made up.

    https://kubeflow-pipelines.readthedocs.io/en/stable/source/client.html

    Raises:
        BrokenInput: the installation reads cron expressions in another time zone.
    """
    if options.time_zone != options.kubeflow_time_zone:
        raise BrokenInput(
            f"schedule.time_zone is {options.time_zone}, but Kubeflow Pipelines reads every cron expression in one "
            f"zone, here {options.kubeflow_time_zone}: use that zone, or set CRON_SCHEDULE_TIMEZONE of the deployment "
            "ml-pipeline-scheduledworkflow and schedule.kubeflow_time_zone"
        )
    return {
        "experiment_id": experiment_id,
        "job_name": request.name,
        "start_time": _second_before(options.opens),
        "end_time": _second_before(options.closes),
        "cron_expression": f"0 {options.expression.text}",
        "max_concurrency": 1,
        "no_catchup": options.catch_up != "all",
        "params": dict(request.parameters),
        "pipeline_package_path": request.spec_file,
        "enabled": True,
        "pipeline_root": request.cluster.pipeline_root,
        "service_account": request.cluster.service_account,
    }


def _second_before(limit: datetime | None) -> str | None:
    """A second before a limit of the window, as RFC 3339."""
    return (limit - timedelta(seconds=1)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if limit else None


def _recurring_run_ids(client: kfp.Client, experiment_id: str, name: str) -> list[str]:
    """The ids of an experiment's recurring runs of that display name."""
    predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    found: list[str] = []
    token = ""
    while True:
        page = client.list_recurring_runs(
            page_token=token,
            page_size=_LIST_PAGE_SIZE,
            experiment_id=experiment_id,
            filter=json.dumps({"predicates": [predicate]}),
        )
        found += [run.recurring_run_id for run in page.recurring_runs or [] if run.display_name == name]
        token = page.next_page_token or ""
        if not token:
            return found


def _show_recurring_run(request: ScheduleRequest) -> str:
    with _compiled_pipeline(request, "kubeflow", stage=False) as (run, lines):
        arguments = recurring_run(run, request.config.schedule, f"(the id of {request.config.cluster.experiment})")
    arguments["pipeline_package_path"] = f"(what `ingraph compile {request.path} --target kubeflow` writes)"
    return f"{json.dumps(arguments, indent=2)}\n{lines}"


def _apply_recurring_run(request: ScheduleRequest) -> str:
    """Create a recurring run, then delete those of the same name, so that a failure leaves a schedule."""
    cluster = request.config.cluster
    with (
        _compiled_pipeline(request, "kubeflow", stage=True) as (run, lines),
        kubeflow_client(cluster, "the change") as client,
    ):
        experiment = client.create_experiment(cluster.experiment).experiment_id
        before = _recurring_run_ids(client, experiment, run.name)
        created = client.create_recurring_run(**recurring_run(run, request.config.schedule, experiment))
        for run_id in before:
            client.delete_recurring_run(run_id)
    address = f"{str(cluster.host).rstrip('/')}/#/recurringrun/details/{created.recurring_run_id}"
    return f"scheduled {address}\n{lines}"


def _remove_recurring_runs(request: ScheduleRequest) -> str:
    cluster, name = request.config.cluster, request.scheduled.schedule_name
    with kubeflow_client(cluster, "the change") as client:
        try:
            experiment = client.get_experiment(experiment_name=cluster.experiment).experiment_id
        except ValueError:  # there is none
            found = []
        else:
            found = _recurring_run_ids(client, experiment, name)
        for run_id in found:
            client.delete_recurring_run(run_id)
    return f"removed {len(found)} recurring runs of {name}"


KUBEFLOW = ScheduleTarget(_show_recurring_run, _apply_recurring_run, _remove_recurring_runs)


@contextmanager
def _vertex_client(cluster: ClusterOptions) -> Iterator[tuple[ScheduleServiceClient, Any]]:
    """A client and its credentials; errors of Google's clients become BrokenInput or NotSubmitted.

    Raises:
        BrokenInput: the config does not say which project and region, or there are no credentials.
        NotSubmitted: Vertex AI cannot be reached, or did not do what it was asked for.
    """
    from google.cloud.aiplatform_v1 import ScheduleServiceClient

    with vertex_credentials(cluster, "the change") as credentials:
        address = {"api_endpoint": f"{cluster.region}-aiplatform.googleapis.com"}
        yield ScheduleServiceClient(credentials=credentials, client_options=address), credentials


def vertex_schedule(request: RunRequest, options: ScheduleOptions, credentials: Any) -> Schedule:
    """The schedule of a compiled pipeline: one run at a time, others wait or are left out as `overlap` says.

    https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.schedules

    Raises:
        BrokenInput: `cluster` lacks what Vertex AI needs, or names a region that it does not have.
    """
    from google.cloud.aiplatform_v1.types import CreatePipelineJobRequest, PipelineJob, Schedule

    # The job is not there yet, so its public properties are not either.
    job = PipelineJob(pipeline_job(request, credentials)._gca_resource)
    if request.cluster.service_account:
        job.service_account = request.cluster.service_account
    schedule = Schedule(
        display_name=request.name,
        cron=f"TZ={options.time_zone} {options.expression.text}",
        max_concurrent_run_count=1,
        allow_queueing=options.overlap == "queue",
        create_pipeline_job_request=CreatePipelineJobRequest(parent=vertex_location(request.cluster), pipeline_job=job),
    )
    if options.opens and options.opens > datetime.now(UTC):
        schedule.start_time = options.opens - timedelta(seconds=1)
    if options.closes:
        schedule.end_time = options.closes - timedelta(seconds=1)
    return schedule


def _schedules_named(client: ScheduleServiceClient, parent: str, name: str) -> list[Schedule]:
    """The schedules of that display name; `parent` is projects/…/locations/…."""
    request = {"parent": parent, "filter": f'display_name="{name}"'}
    return [schedule for schedule in client.list_schedules(request=request) if schedule.display_name == name]


def apply_to_vertex(schedule: Schedule, client: ScheduleServiceClient) -> str:
    """Create a schedule, or update that of the same name; returns its resource name.

    Vertex AI never changes the pipeline of a schedule: where that differs, a new schedule is created, and then the one
    before deleted, so that a failure leaves a schedule.
    """
    from google.protobuf.field_mask_pb2 import FieldMask

    parent = schedule.create_pipeline_job_request.parent
    before = _schedules_named(client, parent, schedule.display_name)
    same = [known for known in before if _pipeline(known) == _pipeline(schedule)]
    if same:
        updated = type(schedule)(schedule, name=same[0].name)
        if not schedule.start_time:
            updated.start_time = same[0].start_time
        applied = client.update_schedule(schedule=updated, update_mask=FieldMask(paths=_UPDATABLE_FIELDS))
    else:
        applied = client.create_schedule(parent=parent, schedule=schedule)
    for known in before:
        if known.name != applied.name:
            client.delete_schedule(name=known.name).result()
    return str(applied.name)


def _pipeline(schedule: Schedule) -> tuple[object, ...]:
    """What of a schedule Vertex AI never changes."""
    job = schedule.create_pipeline_job_request.pipeline_job
    return job.pipeline_spec, job.runtime_config, job.service_account


def remove_from_vertex(client: ScheduleServiceClient, parent: str, name: str) -> int:
    """Delete the schedules of that display name; returns how many there were. Runs that go on are left alone."""
    found = _schedules_named(client, parent, name)
    for schedule in found:
        client.delete_schedule(name=schedule.name).result()
    return len(found)


def _show_vertex_schedule(request: ScheduleRequest) -> str:
    with _compiled_pipeline(request, "vertex", stage=False) as (run, lines):
        schedule = vertex_schedule(run, request.config.schedule, AnonymousCredentials())
    del schedule.create_pipeline_job_request.pipeline_job.pipeline_spec  # `ingraph compile` writes it
    return f"{type(schedule).to_json(schedule, always_print_fields_with_no_presence=False)}\n{lines}"


def _apply_vertex_schedule(request: ScheduleRequest) -> str:
    with (
        _vertex_client(request.config.cluster) as (client, credentials),
        _compiled_pipeline(request, "vertex", stage=True) as (run, lines),
    ):
        name = apply_to_vertex(vertex_schedule(run, request.config.schedule, credentials), client)
        return f"scheduled {name}\n{lines}"


def _remove_vertex_schedules(request: ScheduleRequest) -> str:
    cluster, name = request.config.cluster, request.scheduled.schedule_name
    with _vertex_client(cluster) as (client, _):
        count = remove_from_vertex(client, vertex_location(cluster), name)
    return f"removed {count} schedules named {name}"


VERTEX = ScheduleTarget(_show_vertex_schedule, _apply_vertex_schedule, _remove_vertex_schedules)
