"""A finished run, as a report reads it: its steps, artifacts and options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from components.run_report.statistics import LiveFigures

StepState = Literal["done", "unchanged", "failed", "not reached"]


@dataclass(frozen=True)
class Step:
    """What became of a component of the pipeline.

    Attributes:
        name: its id in the pipeline.
        state: `unchanged` where the outputs of an earlier run were used.
        seconds: how long it took; None where it did not run to its end.
        upstream: the steps whose outputs it takes.
    """

    name: str
    state: StepState
    seconds: float | None
    upstream: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunArtifact:
    """Where an artifact lies, and its properties (TFX's and custom ones in one mapping)."""

    uri: str
    properties: Mapping[str, Any] = field(default_factory=dict)

    def flag(self, name: str) -> bool:
        return bool(self.properties.get(name))

    def text(self, name: str) -> str:
        return str(self.properties.get(name, ""))


@dataclass(frozen=True)
class ServedModel:
    """The lineage of a published version; "" for what is not recorded.

    Attributes:
        version: its number in the model base path.
        path: where it lies.
        published_at: when, in ISO 8601.
        run_id: the run that made it.
        data_fingerprint: of the examples it was trained and evaluated on.
        code_fingerprint: of the code and the config that made it.
        data_spans: the spans that it learned from, the oldest first; () where its data did not come in spans.
    """

    version: int
    path: str
    published_at: str = ""
    run_id: str = ""
    data_fingerprint: str = ""
    code_fingerprint: str = ""
    data_spans: tuple[str, ...] = ()


@dataclass(frozen=True)
class FinishedRun:
    """A run that ended, at its last step or before.

    Attributes:
        name: of the pipeline and the model.
        run_id: what the run is called.
        config: the config as JSON has it; {} where it is not known.
        artifacts: by role: examples, statistics, schema, anomalies, verdict, span_anomalies, drift, transform_graph,
            model, baseline_model, evaluation, model_blessing, infra_blessing, replay_blessing, pushed_model. Those that
            the run did not come to are not there.
        steps: in the order in which they run; () where the report is made inside of the run.
        ended: why the run ended early, in words; "" where it did not.
        served: what is served now, None where nothing is.
        data_spans: the spans that the data are of, the oldest first; () where they did not come in spans.
        served_statistics: the statistics of the data that the model was trained on which this one is compared with.
        live: how good what is served is by labels that came later; None where nobody has looked.
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
    live: LiveFigures | None = None

    def has_step(self, name: str) -> bool:
        return any(step.name == name for step in self.steps)

    def failed_in(self, name: str) -> bool:
        return any(step.name == name and step.state == "failed" for step in self.steps)

    def label_column(self) -> str:
        return str(self.config.get("preprocessing", {}).get("label", {}).get("column", ""))

    def label_name(self, value: str) -> str:
        """What the config calls a raw label value."""
        return str(self.config.get("preprocessing", {}).get("label", {}).get("names", {}).get(value, value))


def artifact_json(run: FinishedRun, role: str, name: str) -> Mapping[str, Any]:
    """A JSON file of an artifact of a run, {} where there is none."""
    from tfx.dsl.io import fileio
    from tfx.utils import io_utils

    path = f"{run.artifacts[role].uri}/{name}" if role in run.artifacts else ""
    content: dict[str, Any] = json.loads(io_utils.read_string_file(path)) if path and fileio.exists(path) else {}
    return content
