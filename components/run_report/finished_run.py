"""What a report is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.run_report.run_artifact import RunArtifact
from components.run_report.served_model import ServedModel
from components.run_report.step import Step


@dataclass(frozen=True)
class FinishedRun:
    """A run that ended, at its last step or before.

    Attributes:
        name: of the pipeline and the model.
        run_id: what the run is called.
        config: the config as JSON has it; {} where it is not known.
        artifacts: by role: examples, statistics, schema, anomalies, verdict, span_anomalies, drift, transform_graph,
            model, baseline_model, evaluation, model_blessing, infra_blessing, pushed_model. Those that the run did not
            come to are not there.
        steps: in the order in which they run; () where the report is made inside of the run.
        ended: why the run ended early, in words; "" where it did not.
        served: what is served now, None where nothing is.
        data_spans: the spans that the data are of, the oldest first; () where they did not come in spans.
        served_statistics: the statistics of the data that the model was trained on which this one is compared with.
    """

    name: str
    run_id: str
    config: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, RunArtifact] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    ended: str = ""
    served: ServedModel | None = None
    data_spans: tuple[str, ...] = ()
    served_statistics: RunArtifact | None = None

    def has_step(self, name: str) -> bool:
        return any(step.name == name for step in self.steps)

    def failed_in(self, name: str) -> bool:
        return any(step.name == name and step.state == "failed" for step in self.steps)

    def label_column(self) -> str:
        return str(self.config.get("preprocessing", {}).get("label", {}).get("column", ""))

    def label_name(self, value: str) -> str:
        """What the config calls a raw label value."""
        return str(self.config.get("preprocessing", {}).get("label", {}).get("names", {}).get(value, value))
