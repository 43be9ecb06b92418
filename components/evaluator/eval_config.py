"""EvaluationOptions as TFMA's EvalConfig."""

from __future__ import annotations

import json

from tensorflow_model_analysis.proto import config_pb2

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
