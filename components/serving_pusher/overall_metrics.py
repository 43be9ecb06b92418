"""The candidate's metrics, out of an evaluation."""

from __future__ import annotations

BASELINE = "baseline"


def overall_metrics(evaluation: str) -> dict[str, float]:
    """Metric -> value on the whole eval split, from the directory that TFMA wrote."""
    # Slow to import, and not needed by a run that publishes nothing.
    import tensorflow_model_analysis as tfma

    return {
        metric.key.name: metric.value.double_value.value
        for metrics in tfma.load_metrics(evaluation)
        if not metrics.slice_key.single_slice_keys
        for metric in metrics.metric_keys_and_values
        if metric.value.WhichOneof("type") == "double_value"
        and metric.key.model_name != BASELINE
        and not metric.key.is_diff
    }
