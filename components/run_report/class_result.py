"""How good a model is at each class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from components.run_report.eval_predictions import EvalPredictions
from components.run_report.interval import Interval
from components.run_report.wilson_interval import wilson_interval


@dataclass(frozen=True)
class ClassResult:
    """Of one class.

    Attributes:
        label: its name.
        examples: how many examples are of it.
        recall: the share of them that the model names so; None without examples.
        precision: the share of those that the model names so which are; None where it names none so.
        baseline_recall: the recall of the model served before.
    """

    label: str
    examples: int
    recall: Interval | None
    precision: Interval | None
    baseline_recall: Interval | None


def class_results(predictions: EvalPredictions) -> list[ClassResult]:
    """A result for each class, in the order of the labels."""
    return [_result(predictions, number, label) for number, label in enumerate(predictions.labels)]


def _result(predictions: EvalPredictions, number: int, label: str) -> ClassResult:
    is_class = predictions.truth == number
    named_so = predictions.predicted == number
    hits, examples = int((is_class & named_so).sum()), int(is_class.sum())
    baseline = None
    if predictions.baseline is not None:
        baseline_hits = int(np.sum(is_class & (predictions.baseline.argmax(axis=1) == number)))
        baseline = wilson_interval(baseline_hits, examples)
    return ClassResult(
        label=label,
        examples=examples,
        recall=wilson_interval(hits, examples),
        precision=wilson_interval(hits, int(named_so.sum())),
        baseline_recall=baseline,
    )
