"""The sections of a report: the data, and how good the model is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from components.drift import ColumnShift, shift_sentence
from components.run_report.charts import (
    calibration_chart,
    class_balance_chart,
    column_chart,
    confusion_chart,
    intervals_chart,
    shift_chart,
    threshold_charts,
)
from components.run_report.dataset import ColumnSummary, DataSummary
from components.run_report.evaluation import ShownExample, SliceMetrics, confident_mistakes, one_of_each_class
from components.run_report.finished_run import FinishedRun
from components.run_report.statistics import (
    Calibration,
    ClassResult,
    EvalPredictions,
    Interval,
    MetricEstimate,
    calibration,
    class_results,
    confusion_matrix,
    metric_estimates,
    threshold_curve,
    wilson_interval,
)

# More pictures than that make the page slow and tell nobody anything.
COLUMNS_WITH_PICTURE = 40


@dataclass(frozen=True)
class ColumnRow:
    """A row of the table of columns: the summary, its picture, the shift between the splits and that from before."""

    summary: ColumnSummary
    picture: str
    skew: ColumnShift | None
    drift: ColumnShift | None


@dataclass(frozen=True)
class DataSection:
    """What the template shows of the data."""

    summary: DataSummary
    balance: str
    columns: list[ColumnRow]
    skew: str
    skew_picture: str
    drift: str
    drift_picture: str


def data_section(summary: DataSummary) -> DataSection:
    """Put words and pictures to a summary."""
    skew, drift = ({shift.column: shift for shift in shifts or ()} for shifts in (summary.skew, summary.drift))
    columns = [
        ColumnRow(
            summary=column,
            picture=column_chart(column) if place < COLUMNS_WITH_PICTURE else "",
            skew=skew.get(column.name),
            drift=drift.get(column.name),
        )
        for place, column in enumerate(summary.columns)
    ]
    return DataSection(
        summary=summary,
        balance=class_balance_chart(summary.classes) if any(summary.classes.values()) else "",
        columns=columns,
        skew=shift_sentence(summary.skew, "the eval split", "the train split"),
        skew_picture=shift_chart(summary.skew, "divergence, eval from train") if summary.skew else "",
        drift=""
        if summary.drift is None
        else shift_sentence(summary.drift, "the train split", "that of the model it is compared with"),
        drift_picture=shift_chart(summary.drift, "divergence from the served model's data") if summary.drift else "",
    )


# Beyond this a picture of the whole matrix cannot be read; the pairs that are mixed up most are listed in any case.
CLASSES_IN_MATRIX = 40
SHOWN_PAIRS = 8
SHOWN_CLASSES = 50


@dataclass(frozen=True)
class SliceRow:
    """A slice of the eval split: TFMA's metrics, and the interval of its accuracy."""

    metrics: SliceMetrics
    accuracy: Interval | None


@dataclass(frozen=True)
class ConfusedPair:
    """How many examples of a class are taken for another."""

    truth: str
    predicted: str
    examples: int


@dataclass(frozen=True)
class ModelSection:
    """What the template shows of the model."""

    examples: int
    drawn_of: int | None
    has_baseline: bool
    estimates: list[MetricEstimate]
    intervals: str
    slices: list[SliceRow]
    classes: list[ClassResult]
    confusion: str
    pairs: list[ConfusedPair]
    curves: str
    positive: str
    calibration: Calibration
    calibration_picture: str
    mistakes: list[ShownExample]
    inputs: list[ShownExample]


def model_section(run: FinishedRun, predictions: EvalPredictions, evaluation: Sequence[SliceMetrics]) -> ModelSection:
    """Recompute the figures of a model from its predictions, and draw them; those of slices are TFMA's."""
    estimates = metric_estimates(predictions)
    matrix = confusion_matrix(predictions)
    calibrated = calibration(predictions)
    few_classes = len(predictions.labels) <= CLASSES_IN_MATRIX
    return ModelSection(
        examples=len(predictions.truth),
        drawn_of=predictions.drawn_of,
        has_baseline=predictions.baseline is not None,
        estimates=estimates,
        intervals=intervals_chart(estimates),
        slices=[SliceRow(one, _accuracy(one, predictions.weights is not None)) for one in evaluation if one.slice],
        classes=_classes(predictions),
        confusion=confusion_chart(matrix, predictions.labels) if few_classes else "",
        pairs=_pairs(matrix, predictions.labels),
        curves=_curves(predictions, estimates),
        positive=predictions.labels[1] if len(predictions.labels) == 2 else "",
        calibration=calibrated,
        calibration_picture=calibration_chart(calibrated),
        mistakes=confident_mistakes(run, predictions),
        inputs=one_of_each_class(run, predictions),
    )


def _accuracy(metrics: SliceMetrics, weighted: bool) -> Interval | None:
    total = metrics.candidate.get("example_count", 0)
    if weighted:  # by how many rows is not known here
        return Interval(metrics.candidate.get("accuracy", np.nan), np.nan, np.nan)
    return wilson_interval(metrics.candidate.get("accuracy", 0) * total, total)


def _classes(predictions: EvalPredictions) -> list[ClassResult]:
    """All classes; of very many those with examples that are found least often."""
    results = class_results(predictions)
    if len(results) <= SHOWN_CLASSES:
        return results
    found = [(one.recall.value, one) for one in results if one.recall is not None]
    return [one for _, one in sorted(found, key=lambda pair: pair[0])[:SHOWN_CLASSES]]


def _pairs(matrix: np.ndarray, labels: Sequence[str]) -> list[ConfusedPair]:
    mixed_up = [
        ConfusedPair(labels[row], labels[column], int(matrix[row, column]))
        for row, column in np.argwhere(matrix).tolist()
        if row != column
    ]
    return sorted(mixed_up, key=lambda pair: -pair.examples)[:SHOWN_PAIRS]


def _curves(predictions: EvalPredictions, estimates: Sequence[MetricEstimate]) -> str:
    if len(predictions.labels) != 2:
        return ""
    positive = predictions.truth == 1
    candidate = threshold_curve(positive, predictions.probabilities[:, 1])
    if candidate is None:
        return ""
    baseline = None if predictions.baseline is None else threshold_curve(positive, predictions.baseline[:, 1])
    area = next(one.candidate.value for one in estimates if one.name == "auc")
    return threshold_charts(candidate, baseline, area, predictions.labels[1])
