"""TFMA's EvalConfig of EvaluationOptions, and what an evaluation by it found: metrics, and thresholds that fail."""

from __future__ import annotations

import json

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2, metrics_for_slice_pb2, validation_result_pb2

from components.evaluator.options import EvaluationOptions, Metric

CANDIDATE = "candidate"
BASELINE = "baseline"
LABEL_KEY = "__label__"
PREDICTION_KEY = "__probabilities_of_{model}__"

# Beyond this, a curve for each class costs more than it tells.
CLASSES_WITH_CURVES = 20
_CLASS_NAMES: dict[Metric, str] = {
    "accuracy": "SparseCategoricalAccuracy",
    "cross_entropy": "SparseCategoricalCrossentropy",
    "auc": "AUC",
}


def eval_config(options: EvaluationOptions, classes: int, has_baseline: bool) -> config_pb2.EvalConfig:
    """Metrics of examples that carry predictions: their label in LABEL_KEY, probabilities in PREDICTION_KEY.

    TFMA: https://www.tensorflow.org/tfx/model_analysis/setup
    """
    models = [CANDIDATE, BASELINE] if has_baseline else [CANDIDATE]
    specs = [
        config_pb2.MetricsSpec(
            metrics=[
                config_pb2.MetricConfig(class_name="ExampleCount", config='{"name": "example_count"}'),
                _metric("accuracy", options, has_baseline),
                _metric("cross_entropy", options, has_baseline),
            ],
            model_names=models,
        )
    ]
    if classes <= CLASSES_WITH_CURVES:
        specs.append(
            config_pb2.MetricsSpec(
                metrics=[_metric("auc", options, has_baseline)],
                # The curves of two classes mirror each other: one is enough.
                binarize=config_pb2.BinarizationOptions(class_ids={"values": range(1 if classes == 2 else 0, classes)}),
                aggregate=config_pb2.AggregationOptions(
                    macro_average=True, class_weights=dict.fromkeys(range(1 if classes == 2 else 0, classes), 1.0)
                ),
                model_names=models,
            )
        )
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(
                name=model,
                is_baseline=model == BASELINE,
                label_key=LABEL_KEY,
                prediction_key=PREDICTION_KEY.format(model=model),
            )
            for model in models
        ],
        metrics_specs=specs,
        slicing_specs=[
            config_pb2.SlicingSpec(),
            *(config_pb2.SlicingSpec(feature_keys=keys) for keys in options.slices),
        ],
    )


def _metric(metric: Metric, options: EvaluationOptions, has_baseline: bool) -> config_pb2.MetricConfig:
    config = config_pb2.MetricConfig(class_name=_CLASS_NAMES[metric], config=json.dumps({"name": metric}))
    # Of all examples; `config.threshold` would hold for every slice as well.
    threshold = config_pb2.MetricThreshold()
    if metric in options.at_least:
        threshold.value_threshold.lower_bound.value = options.at_least[metric]
    if metric in options.at_most:
        threshold.value_threshold.upper_bound.value = options.at_most[metric]
    if has_baseline and metric in options.may_worsen_by:
        change = threshold.change_threshold
        if metric == "cross_entropy":
            change.direction = config_pb2.MetricDirection.LOWER_IS_BETTER
            change.absolute.value = options.may_worsen_by[metric]
        else:
            change.direction = config_pb2.MetricDirection.HIGHER_IS_BETTER
            change.absolute.value = -options.may_worsen_by[metric]
    if threshold.ByteSize():
        config.per_slice_thresholds.add(slicing_specs=[config_pb2.SlicingSpec()], threshold=threshold)
    return config


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
