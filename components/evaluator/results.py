"""Results of an evaluation: the candidate's metrics, and the thresholds that it fails."""

from __future__ import annotations

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2, metrics_for_slice_pb2, validation_result_pb2

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


def threshold_failures(result: validation_result_pb2.ValidationResult) -> list[str]:
    """One sentence for each threshold that does not hold; none where all hold."""
    failures = []
    for slice_result in result.metric_validations_per_slice:
        for failure in slice_result.failures:
            failures.append(_sentence(failure) + _of_slice(slice_result.slice_key))
    if not failures and not result.validation_ok:
        failures.append(
            "there is nothing to measure for a threshold: no example of the eval split has a label of the model; add "
            "some, or take the threshold out of the config"
        )
    return list(dict.fromkeys(failures))  # an aggregate and its only class say the same


def _sentence(failure: validation_result_pb2.ValidationFailure) -> str:
    metric = failure.metric_key.name
    value = failure.metric_value.double_value.value
    threshold = failure.metric_threshold
    if failure.metric_key.is_diff:
        bound = threshold.change_threshold
        higher_is_better = bound.direction == config_pb2.MetricDirection.HIGHER_IS_BETTER
        expected = f"at {'least' if higher_is_better else 'most'} {bound.absolute.value:+g}"
        return f"{metric} changed by {value:+.4f} against the model served now, expected {expected}"
    bounds = threshold.value_threshold
    if bounds.HasField("lower_bound") and not value >= bounds.lower_bound.value:
        return f"{metric} is {value:.4f}, expected at least {bounds.lower_bound.value:g}"
    return f"{metric} is {value:.4f}, expected at most {bounds.upper_bound.value:g}"


def _of_slice(key: metrics_for_slice_pb2.SliceKey) -> str:
    values = [
        f"{single.column}={getattr(single, kind)}"
        for single in key.single_slice_keys
        if (kind := single.WhichOneof("kind"))
    ]
    return f" where {', '.join(values)}" if values else ""
