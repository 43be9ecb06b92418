"""Whether a model is right as often as it says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from components.run_report.eval_predictions import EvalPredictions
from components.run_report.interval import Interval
from components.run_report.wilson_interval import wilson_interval

BINS = 10


@dataclass(frozen=True)
class CalibrationBin:
    """The examples whose best label has a probability in a tenth.

    Attributes:
        low: where the tenth begins.
        high: where it ends.
        examples: how many there are.
        confidence: the mean probability of the best label.
        accuracy: the share for which that label is right.
    """

    low: float
    high: float
    examples: int
    confidence: float
    accuracy: Interval


@dataclass(frozen=True)
class Calibration:
    """The bins that hold examples, and the expected calibration error: the mean distance between the two shares."""

    bins: tuple[CalibrationBin, ...]
    expected_error: float


def calibration(predictions: EvalPredictions) -> Calibration:
    """Compare how sure the model is of its best label with how often that is right."""
    confidence = predictions.probabilities.max(axis=1).astype(np.float64)
    correct = predictions.predicted == predictions.truth
    numbers = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = []
    for number in np.unique(numbers).tolist():
        chosen = numbers == number
        share = wilson_interval(int(correct[chosen].sum()), int(chosen.sum()))
        if share is not None:
            mean = float(confidence[chosen].mean())
            bins.append(CalibrationBin(number / BINS, (number + 1) / BINS, int(chosen.sum()), mean, share))
    examples = len(confidence)
    error = sum(one.examples / examples * abs(one.accuracy.value - one.confidence) for one in bins)
    return Calibration(tuple(bins), float(error))
