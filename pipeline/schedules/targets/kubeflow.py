"""Kubeflow Pipelines, by a recurring run."""

from __future__ import annotations

import json

from pipeline.schedules.apply_to_kubeflow import apply_to_kubeflow
from pipeline.schedules.recurring_run import recurring_run
from pipeline.schedules.remove_from_kubeflow import remove_from_kubeflow
from pipeline.schedules.schedule_request import ScheduleRequest
from pipeline.schedules.schedule_target import ScheduleTarget
from pipeline.schedules.scheduled_pipeline import scheduled_pipeline


def _show(request: ScheduleRequest) -> str:
    with scheduled_pipeline(request, "kubeflow", stage=False) as (run, lines):
        arguments = recurring_run(run, request.config.schedule, f"(the id of {request.config.cluster.experiment})")
    arguments["pipeline_package_path"] = f"(what `ingraph compile {request.path} --target kubeflow` writes)"
    return f"{json.dumps(arguments, indent=2)}\n{lines}"


def _apply(request: ScheduleRequest) -> str:
    with scheduled_pipeline(request, "kubeflow", stage=True) as (run, lines):
        return f"scheduled {apply_to_kubeflow(run, request.config.schedule)}\n{lines}"


def _remove(request: ScheduleRequest) -> str:
    count = remove_from_kubeflow(request.config.cluster, request.scheduled.title)
    return f"removed {count} recurring runs of {request.scheduled.title}"


KUBEFLOW = ScheduleTarget(_show, _apply, _remove)
