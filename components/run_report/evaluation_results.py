"""What TFMA measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow_model_analysis as tfma

from components.evaluator.eval_config import BASELINE, CANDIDATE
from components.run_report.run_artifact import RunArtifact


@dataclass(frozen=True)
class SliceMetrics:
    """The metrics of a part of the eval split.

    Attributes:
        slice: such as `sex=1`; "" for all examples.
        candidate: metric -> value of the new model.
        baseline: metric -> value of the model served before; {} where there is none.
    """

    slice: str
    candidate: Mapping[str, float]
    baseline: Mapping[str, float]


def read_evaluation(evaluation: RunArtifact) -> list[SliceMetrics]:
    """The slices of an evaluation, all examples first."""
    found = [_metrics(metrics) for metrics in tfma.load_metrics(evaluation.uri)]
    return sorted(found, key=lambda metrics: metrics.slice)


def _metrics(metrics: tfma.proto.metrics_for_slice_pb2.MetricsForSlice) -> SliceMetrics:
    models: dict[str, dict[str, float]] = {CANDIDATE: {}, BASELINE: {}}
    for metric in metrics.metric_keys_and_values:
        key = metric.key
        if key.is_diff or key.HasField("sub_key") or metric.value.WhichOneof("type") != "double_value":
            continue
        # TFMA names the model only where there are two.
        models[key.model_name or CANDIDATE][key.name] = metric.value.double_value.value
    return SliceMetrics(_slice_name(metrics.slice_key), models[CANDIDATE], models[BASELINE])


def _slice_name(key: tfma.proto.metrics_for_slice_pb2.SliceKey) -> str:
    parts = []
    for single in key.single_slice_keys:
        kind = single.WhichOneof("kind")
        value = getattr(single, kind) if kind else ""
        parts.append(f"{single.column}={value.decode() if isinstance(value, bytes) else value}")
    return ", ".join(parts)
