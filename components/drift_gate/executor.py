"""Reads what DistributionValidator found, and stops the run or lets it pass."""

from __future__ import annotations

import json
from typing import Any

from tfx import types
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
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
