"""The last step of a compiled pipeline."""

from __future__ import annotations

from collections.abc import Sequence

from tfx.dsl.components.base.base_component import BaseComponent

from pipeline.artifact_role import artifact_role
from pipeline.config import RunConfig


def report_step(components: Sequence[BaseComponent], config: RunConfig, run_id: str) -> BaseComponent:
    """Makes the report of a run on a cluster, which leaves nothing else for people; `ingraph run` makes it at its end.

    Args:
        components: all other steps.
        config: of the run.
        run_id: what the run is called.
    """
    # Its plotting library would make every other run begin later.
    from components.run_report.component import RunReport
    from components.run_report.spec import RunReportSpec

    outputs = {
        artifact_role(component.id, key): channel
        for component in components
        for key, channel in component.outputs.items()
    }
    inputs = {role: channel for role, channel in outputs.items() if role in RunReportSpec.INPUTS}
    return RunReport(config=config.model_dump_json(), run_id=run_id, **inputs)
