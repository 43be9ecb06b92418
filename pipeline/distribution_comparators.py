"""Bounds of divergence, as DistributionValidator takes them."""

from __future__ import annotations

from collections.abc import Mapping

from tensorflow_metadata.proto.v0 import path_pb2
from tfx import v1 as tfx


def distribution_comparators(bounds: Mapping[str, float]) -> tfx.proto.DistributionValidatorConfig:
    """A comparison by Jensen-Shannon divergence of each column.

    Args:
        bounds: column -> the largest divergence, above 0 and at most 1.
    """
    config = tfx.proto.DistributionValidatorConfig()
    for column, bound in bounds.items():
        feature = config.default_slice_config.feature.add(path=path_pb2.Path(step=[column]))
        feature.distribution_comparator.jensen_shannon_divergence.threshold = bound
    return config
