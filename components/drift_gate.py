"""DriftGate: stops a run on a span that differs too much from the one before it."""

from __future__ import annotations

import json
from typing import Any

from tfx import types
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils

from components.drift import (
    PREVIOUS,
    ComparedSpan,
    compared_splits,
    drift_sentences,
    measured_drift,
    read_span_anomalies,
)
from components.errors import AnomaliesFound

DRIFT_FILE = "drift.json"


class Executor(base_executor.BaseExecutor):
    """Writes drift.json; raises where it stops the run."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Judge the new spans.

        Raises:
            AnomaliesFound: a column of one of them drifted, or cannot be compared.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        anomalies = read_span_anomalies(artifact_utils.get_single_uri(input_dict["anomalies"]))
        statistics = artifact_utils.get_single_instance(input_dict["statistics"])
        before = stats_artifact_utils.load_statistics(statistics, PREVIOUS).get_default_slice_or_die().proto()
        spans = [
            ComparedSpan(
                name,
                anomalies[name],
                stats_artifact_utils.load_statistics(statistics, name).get_default_slice_or_die().proto(),
                before,
            )
            for name in compared_splits(artifact_utils.decode_split_names(statistics.split_names))
        ]
        found = {
            "previous": exec_properties["previous_span"],
            "spans": {
                span.name: {column: measured.divergence for column, measured in measured_drift(span.anomalies).items()}
                for span in spans
            },
        }
        drift = artifact_utils.get_single_uri(output_dict["drift"])
        io_utils.write_string_file(f"{drift}/{DRIFT_FILE}", json.dumps(found, indent=2))
        sentences = [sentence for span in spans for sentence in drift_sentences(span, exec_properties["previous_span"])]
        if sentences:
            raise AnomaliesFound("\n".join(sentences))


class DriftGateSpec(ComponentSpec):
    """`drift` is of a standard type that Kubeflow v2 knows: what was found in examples."""

    PARAMETERS = {"previous_span": ExecutionParameter(type=str)}
    INPUTS = {
        "anomalies": ChannelParameter(type=standard_artifacts.ExampleAnomalies),
        "statistics": ChannelParameter(type=standard_artifacts.ExampleStatistics),
    }
    OUTPUTS = {"drift": ChannelParameter(type=standard_artifacts.ExampleAnomalies)}


class DriftGate(base_component.BaseComponent):
    """Ends the run with a sentence for each column that drifted; every measured divergence is in drift.json.

    DistributionValidator itself leaves a run green, whatever it finds.

    Args:
        anomalies: DistributionValidator's, of pairs of splits <span>_previous.
        statistics: of the same splits.
        previous_span: what the span is called that the split `previous` holds.
    """

    SPEC_CLASS = DriftGateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, anomalies: types.BaseChannel, statistics: types.BaseChannel, previous_span: str) -> None:
        super().__init__(
            DriftGateSpec(
                anomalies=anomalies,
                statistics=statistics,
                previous_span=previous_span,
                drift=types.Channel(type=standard_artifacts.ExampleAnomalies),
            )
        )
