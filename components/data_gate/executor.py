"""Reads what the upstream components found, and stops the run or lets it pass."""

from __future__ import annotations

import json
from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx import types
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils

from components.data_gate.judge import judge
from components.data_gate.split_statistics import SplitFindings
from components.data_gate.verdict import ANOMALIES_FILE, VERDICT_FILE
from components.errors import AnomaliesFound, BrokenInput


class Executor(base_executor.BaseExecutor):
    """Writes verdict.json; raises where it stops the run."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Judge the data.

        Raises:
            BrokenInput: nothing can be learned from the data.
            AnomaliesFound: the data contradicts its schema.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        statistics = artifact_utils.get_single_instance(input_dict["statistics"])
        anomalies = artifact_utils.get_single_instance(input_dict["anomalies"])
        schema_file = io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(input_dict["schema"]))
        verdict = judge(
            [
                _findings(statistics, anomalies, split)
                for split in artifact_utils.decode_split_names(statistics.split_names)
            ],
            io_utils.SchemaReader().read(schema_file),
            label=exec_properties["label"],
            schema_is_curated=bool(exec_properties["schema_is_curated"]),
            minimum_examples=exec_properties["minimum_examples"],
            schema_path=exec_properties["schema_path"],
        )
        output = artifact_utils.get_single_instance(output_dict["verdict"])
        io_utils.write_string_file(f"{output.uri}/{VERDICT_FILE}", json.dumps(verdict.as_json(), indent=2))
        if verdict.unusable:
            raise BrokenInput("\n".join(verdict.reasons))
        if verdict.anomalies:
            raise AnomaliesFound("\n".join(verdict.reasons))


def _findings(statistics: types.Artifact, anomalies: types.Artifact, split: str) -> SplitFindings:
    found = anomalies_pb2.Anomalies()
    # A split that ExampleValidator was told to leave out has no anomalies.
    if split in artifact_utils.decode_split_names(anomalies.split_names):
        path = f"{artifact_utils.get_split_uri([anomalies], split)}/{ANOMALIES_FILE}"
        with fileio.open(path, "rb") as file:
            found.ParseFromString(file.read())
    view = stats_artifact_utils.load_statistics(statistics, split).get_default_slice_or_die()
    return SplitFindings(split, view.proto(), found)
