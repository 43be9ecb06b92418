"""Values a schema does not list, also those few that it lets pass."""

from __future__ import annotations

from collections.abc import Mapping

from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from components.data_gate.column_statistics import value_counts
from components.data_gate.schema_expectation import string_domain


def values_outside_domain(
    column: statistics_pb2.FeatureNameStatistics, expected: schema_pb2.Feature, schema: schema_pb2.Schema
) -> Mapping[str, int]:
    """Value -> rows, for a text column whose schema lists its values; {} for other columns.

    TFDV reports such values only beyond the allowance of `distribution_constraints.min_domain_mass`
    (https://www.tensorflow.org/tfx/data_validation/anomalies), so they are read from the statistics.
    """
    domain = set(string_domain(expected, schema))
    return {value: count for value, count in value_counts(column).items() if value not in domain} if domain else {}
