"""The statistics that StatisticsGen left."""

from __future__ import annotations

import json

from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.types import standard_artifacts

from components.run_report.run_artifact import RunArtifact


def read_statistics(artifact: RunArtifact) -> dict[str, statistics_pb2.DatasetFeatureStatistics]:
    """Split -> statistics of all its examples; the train split first."""
    statistics = standard_artifacts.ExampleStatistics()
    statistics.uri = artifact.uri
    statistics.split_names = artifact.text("split_names")
    return {
        split: stats_artifact_utils.load_statistics(statistics, split).get_default_slice_or_die().proto()
        for split in sorted(json.loads(statistics.split_names), key=lambda split: split != "train")
    }
