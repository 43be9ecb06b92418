"""What is known of one split when the gate judges it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2

from components.data_gate.column_statistics import column_name


@dataclass(frozen=True)
class SplitFindings:
    """The statistics of a split, and the anomalies TFDV found in them."""

    name: str
    statistics: statistics_pb2.DatasetFeatureStatistics
    anomalies: anomalies_pb2.Anomalies

    @property
    def examples(self) -> int:
        return int(self.statistics.num_examples)

    @property
    def columns(self) -> Mapping[str, statistics_pb2.FeatureNameStatistics]:
        return {column_name(column): column for column in self.statistics.features}
