"""TFMA's EvalConfig of EvaluationOptions, what examples carry for it, and what it found: metrics, missed thresholds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2, metrics_for_slice_pb2, validation_result_pb2

from components.errors import BrokenInput
from components.evaluator.classification import (
    MEASURED,
    NUMBERS_EACH,
    STATISTICS,
    ClassifierMetric,
    Decisions,
    interval,
)
from components.evaluator.options import LOWER_IS_BETTER, OF_POSITIVE, EvaluationOptions, Metric, SliceOptions

CANDIDATE = "candidate"
BASELINE = "baseline"
LABEL_KEY = "__label__"
WEIGHT_KEY = "__weight__"
PREDICTION_KEY = "__probabilities_of_{model}__"

_ORDER = get_args(Metric)


def eval_config(
    options: EvaluationOptions,
    has_baseline: bool,
    positive: int | None = None,
    weighted: bool = False,
    decisions: Decisions | None = None,
) -> config_pb2.EvalConfig:
    """Metrics of examples that carry predictions: their label in LABEL_KEY, probabilities in PREDICTION_KEY.

    Args:
        options: thresholds and slices.
        has_baseline: whether the examples carry those of a model that is served, too.
        positive: the number of the label that OF_POSITIVE are about; None leaves these out.
        decisions: of the models that do not always answer the most probable label.
        weighted: whether the examples carry weights, in WEIGHT_KEY.

    TFMA: https://www.tensorflow.org/tfx/model_analysis/setup
    """
    models = [CANDIDATE, BASELINE] if has_baseline else [CANDIDATE]
    measured: list[Metric] = ["accuracy", "auc", "cross_entropy", "ece"]
    if positive is not None:
        measured += sorted(OF_POSITIVE)
    # TFMA names the model only where there are two.
    of_models = {name if has_baseline else "": found for name, found in (decisions or {}).items()}
    arguments = {"positive": -1 if positive is None else positive, "decisions": of_models}
    count = config_pb2.MetricConfig(class_name="ExampleCount", config='{"name": "example_count"}')
    metrics = [_metric(metric, options, has_baseline, arguments) for metric in measured]
    if options.has_slice_bounds:
        metrics.append(_own_metric(STATISTICS, arguments))
    unweighted = config_pb2.ExampleWeightOptions(unweighted=True)
    specs = [
        config_pb2.MetricsSpec(metrics=[count], model_names=models, example_weights=unweighted),
        config_pb2.MetricsSpec(metrics=metrics, model_names=models),
    ]
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(
                name=model,
                is_baseline=model == BASELINE,
                label_key=LABEL_KEY,
                prediction_key=PREDICTION_KEY.format(model=model),
                example_weight_key=WEIGHT_KEY if weighted else "",
            )
            for model in models
        ],
        metrics_specs=specs,
        slicing_specs=[
            config_pb2.SlicingSpec(),
            *(config_pb2.SlicingSpec(feature_keys=one.columns) for one in options.slices),
        ],
    )


def _metric(
    metric: Metric, options: EvaluationOptions, has_baseline: bool, arguments: Mapping[str, Any]
) -> config_pb2.MetricConfig:
    """Of ClassifierMetric with these arguments, and the thresholds."""
    config = _own_metric(metric, arguments)
    # Of all examples; `config.threshold` would hold for every slice as well.
    threshold = config_pb2.MetricThreshold()
    if metric in options.at_least:
        threshold.value_threshold.lower_bound.value = options.at_least[metric]
    if metric in options.at_most:
        threshold.value_threshold.upper_bound.value = options.at_most[metric]
    if has_baseline and metric in options.may_worsen_by:
        change = threshold.change_threshold
        if metric in LOWER_IS_BETTER:
            change.direction = config_pb2.MetricDirection.LOWER_IS_BETTER
            change.absolute.value = options.may_worsen_by[metric]
        else:
            change.direction = config_pb2.MetricDirection.HIGHER_IS_BETTER
            change.absolute.value = -options.may_worsen_by[metric]
    if threshold.ByteSize():
        config.per_slice_thresholds.add(slicing_specs=[config_pb2.SlicingSpec()], threshold=threshold)
    return config


def _own_metric(name: str, arguments: Mapping[str, Any]) -> config_pb2.MetricConfig:
    return config_pb2.MetricConfig(
        class_name=ClassifierMetric.__name__,
        module=ClassifierMetric.__module__,
        config=json.dumps({"name": name, **arguments}),
    )


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
        for failure in sorted(slice_result.failures, key=lambda failure: _ORDER.index(failure.metric_key.name)):
            failures.append(_sentence(failure))
    if not failures and not result.validation_ok:
        failures.append(
            "there is nothing to measure for a threshold: no example of the eval split has a label of the model; add "
            "some, or take the threshold out of the config"
        )
    return failures


def _sentence(failure: validation_result_pb2.ValidationFailure) -> str:
    metric = failure.metric_key.name
    value = failure.metric_value.double_value.value
    threshold = failure.metric_threshold
    if math.isnan(value):
        lacking = "is answered with" if metric == "precision" else "has"
        return f"{metric} cannot be measured: no example of the eval split {lacking} one of the labels that it is about"
    if failure.metric_key.is_diff:
        bound = threshold.change_threshold
        higher_is_better = bound.direction == config_pb2.MetricDirection.HIGHER_IS_BETTER
        expected = f"at {'least' if higher_is_better else 'most'} {bound.absolute.value:+g}"
        return f"{metric} changed by {value:+.4f} against the model served now, expected {expected}"
    bounds = threshold.value_threshold
    if bounds.HasField("lower_bound") and not value >= bounds.lower_bound.value:
        return f"{metric} is {value:.4f}, expected at least {bounds.lower_bound.value:g}"
    return f"{metric} is {value:.4f}, expected at most {bounds.upper_bound.value:g}"


def slice_name(key: metrics_for_slice_pb2.SliceKey) -> str:
    """Such as `sex=1, cp=2`; "" for all examples."""
    parts = []
    for single in key.single_slice_keys:
        kind = single.WhichOneof("kind")
        value = getattr(single, kind) if kind else ""
        parts.append(f"{single.column}={value.decode(errors='replace') if isinstance(value, bytes) else value}")
    return ", ".join(parts)


_Figure: TypeAlias = tuple[int, float, float, float | np.ndarray]
_Kind: TypeAlias = Literal["at_least", "at_most"]
SLICE_BOUNDS_FILE = "slice_bounds.json"
# All intervals of an evaluation hold together so often.
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class SliceBound:
    """A bound of a slice, and what was found there.

    Attributes:
        slice: see slice_name.
        metric: its name.
        kind: of the bound.
        bound: the number.
        rows: how many examples the slice has.
        value: of the metric; None where the slice has nothing to measure it by. Likewise the interval.
        low: where the interval begins.
        high: where it ends.
        intervals: how many there are; each is so wide that all of them hold in 95 % of cases (Bonferroni).
        verdict: `misses` where the whole interval is beyond the bound, `undecided` where the bound is within it.
        fails: whether the model may not go live for it.
    """

    slice: str
    metric: str
    kind: _Kind
    bound: float
    rows: int
    value: float | None
    low: float | None
    high: float | None
    intervals: int
    verdict: Literal["holds", "misses", "undecided"]
    fails: bool

    @property
    def demand(self) -> str:
        """The bound, in words."""
        return f"{self.metric} {self.kind.replace('_', ' ')} {self.bound:g} where {self.slice}"

    @property
    def found(self) -> str:
        """The figure, in words."""
        if self.value is None:
            return f"nothing to measure it by, {self.rows:,} rows"
        figure = f"{self.value:.4f} ({self.low:.4f} to {self.high:.4f}), {self.rows:,} rows"
        return f"{figure}, too few to tell" if self.verdict == "undecided" else figure

    @property
    def failure(self) -> str:
        """A sentence of why the model may not go live."""
        together = f"{self.intervals} intervals hold together in {_CONFIDENCE:.0%} of cases"
        if self.verdict == "misses":
            return (
                f"{self.metric} is {self.value:.4f} where {self.slice}, with the interval {self.low:.4f} to "
                f"{self.high:.4f} ({self.rows:,} rows, {together}), "
                f"expected {self.kind.replace('_', ' ')} {self.bound:g}"
            )
        return (
            f"{self.demand} cannot be told: {self.found} ({together}), give more rows, or say undecided: pass for this "
            "slice"
        )


def slice_bounds(options: EvaluationOptions, evaluation: str) -> list[SliceBound]:
    """What the candidate reaches in each slice that has bounds, from the directory that TFMA wrote."""
    found: list[tuple[SliceOptions, _Kind, Metric, float, str, _Figure]] = []
    slices = [metrics for metrics in tfma.load_metrics(evaluation) if metrics.slice_key.single_slice_keys]
    for one in options.slices:
        of_kinds: list[tuple[_Kind, dict[Metric, float]]] = [("at_least", one.at_least), ("at_most", one.at_most)]
        for kind, bounds in of_kinds:
            for metric, bound in bounds.items():
                measured = [
                    (slice_name(metrics.slice_key), _figure(metrics, metric))
                    for metrics in slices
                    if {single.column for single in metrics.slice_key.single_slice_keys} == set(one.columns)
                ]
                measured.sort(key=lambda figure: figure[0])
                if not measured:
                    measured = [(", ".join(f"{column}=any" for column in one.columns), (0, np.nan, np.nan, 0.0))]
                found += [(one, kind, metric, bound, *figure) for figure in measured]
    intervals = sum(bool(np.isfinite(figure[1])) for *_, figure in found)
    result = []
    for one, kind, metric, bound, name, (rows, value, spread, further) in found:
        low, high = interval(metric, value, spread, 1 - (1 - _CONFIDENCE) / max(intervals, 1), further)
        holds, misses = (low >= bound, high < bound) if kind == "at_least" else (high <= bound, low > bound)
        told = bool(np.isfinite(low))
        verdict: Literal["holds", "misses", "undecided"] = "misses" if misses else "holds" if holds else "undecided"
        # Where no example is in any slice, the columns are not those of the data.
        fails = verdict == "misses" or (verdict == "undecided" and (one.undecided == "fail" or not rows))
        result.append(
            SliceBound(
                slice=name,
                metric=metric,
                kind=kind,
                bound=bound,
                rows=rows,
                value=value if told else None,
                low=low if told else None,
                high=high if told else None,
                intervals=intervals,
                verdict=verdict,
                fails=fails,
            )
        )
    return result


def _figure(metrics: metrics_for_slice_pb2.MetricsForSlice, metric: str) -> _Figure:
    """Of the candidate in a slice: how many examples, the value of a metric, and what `interval` takes beside it."""
    values = {
        found.key.name: found.value
        for found in metrics.metric_keys_and_values
        if found.key.model_name != BASELINE and not found.key.is_diff and not found.key.HasField("sub_key")
    }
    numbers = np.array(values[STATISTICS].array_value.float64_values) if STATISTICS in values else np.zeros(1)
    rows = int(numbers[0])
    if len(numbers) == 1:
        return rows, np.nan, np.nan, 0.0
    if metric == "auc":
        return rows, values["auc"].double_value.value, np.nan, numbers[1 + NUMBERS_EACH * len(MEASURED) :]
    place = 1 + NUMBERS_EACH * MEASURED.index(metric)
    value, spread, further = numbers[place : place + NUMBERS_EACH].tolist()
    return rows, value, spread, further


def example_weight(example: tf.train.Example, column: str) -> float:
    """How much an example counts.

    Raises:
        BrokenInput: its weight is missing, negative or no number.
    """
    feature = example.features.feature[column]
    kind = feature.WhichOneof("kind")
    values = [] if kind in (None, "bytes_list") else getattr(feature, kind).value
    if len(values) != 1 or not 0 <= values[0] < np.inf:
        raise BrokenInput(
            f"data.weight: the weight {column!r} of an example is {list(values) or 'missing'}, expected a number of at "
            "least 0 in each row; mend the values, or leave the rows out"
        )
    return float(values[0])


def aligned(probabilities: np.ndarray, labels: Sequence[str], order: Sequence[str]) -> np.ndarray:
    """Columns of `probabilities`, which stand in the order `labels`, in the order `order`; 0 for a label not there."""
    columns = {label: column for column, label in enumerate(labels)}
    result = np.zeros([len(probabilities), len(order)], np.float32)
    for target, label in enumerate(order):
        if label in columns:
            result[:, target] = probabilities[:, columns[label]]
    return result
