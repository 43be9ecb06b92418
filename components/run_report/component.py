"""Makes the report of a run as its last step."""

from __future__ import annotations

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.orchestration import data_types
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.run_report.executor import Executor, RunReportArtifact


class RunReportSpec(ComponentSpec):
    """The inputs are what FinishedRun calls the roles of artifacts; only `examples` and `statistics` must be there."""

    PARAMETERS = {"config": ExecutionParameter(type=str), "run_id": ExecutionParameter(type=str)}
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "statistics": ChannelParameter(type=standard_artifacts.ExampleStatistics),
        "schema": ChannelParameter(type=standard_artifacts.Schema, optional=True),
        "anomalies": ChannelParameter(type=standard_artifacts.ExampleAnomalies, optional=True),
        "verdict": ChannelParameter(type=standard_artifacts.ExampleAnomalies, optional=True),
        "model": ChannelParameter(type=standard_artifacts.Model, optional=True),
        "baseline_model": ChannelParameter(type=standard_artifacts.Model, optional=True),
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation, optional=True),
        "model_blessing": ChannelParameter(type=standard_artifacts.ModelBlessing, optional=True),
        "infra_blessing": ChannelParameter(type=standard_artifacts.InfraBlessing, optional=True),
        "replay_blessing": ChannelParameter(type=standard_artifacts.ModelBlessing, optional=True),
        "pushed_model": ChannelParameter(type=standard_artifacts.PushedModel, optional=True),
    }
    OUTPUTS = {"report": ChannelParameter(type=RunReportArtifact)}


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
