"""Makes the report of a run as its last step."""

from __future__ import annotations

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.orchestration import data_types

from components.run_report.executor import Executor
from components.run_report.report_artifact import RunReportArtifact
from components.run_report.spec import RunReportSpec


class RunReport(base_component.BaseComponent):
    """Writes report.html into its output `report`.

    For clusters, where nothing of ours is left once the pipeline has ended. On one machine `ingraph run` makes the same
    page after the end, of a run that a gate stopped too, and with the steps and their times: a component sees neither.

    Args:
        config: the validated config, as JSON.
        run_id: what the run is called.
        inputs: the artifacts by role, see RunReportSpec.
    """

    SPEC_CLASS = RunReportSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, config: str, run_id: str | data_types.RuntimeParameter, **inputs: types.BaseChannel) -> None:
        super().__init__(
            RunReportSpec(config=config, run_id=run_id, **inputs, report=types.Channel(type=RunReportArtifact))
        )
