"""The candidate's metrics, out of an evaluation."""

from __future__ import annotations

import tensorflow_model_analysis as tfma

from components.evaluator.eval_config import BASELINE


def overall_metrics(evaluation: str) -> dict[str, float]:
    """Metric -> value on the whole eval split, from the directory that TFMA wrote; those of single classes left out."""
    return {
        metric.key.name: metric.value.double_value.value
        for metrics in tfma.load_metrics(evaluation)
        if not metrics.slice_key.single_slice_keys
        for metric in metrics.metric_keys_and_values
        if metric.value.WhichOneof("type") == "double_value"
        and metric.key.model_name != BASELINE
        and not metric.key.is_diff
        and not metric.key.HasField("sub_key")
    }
