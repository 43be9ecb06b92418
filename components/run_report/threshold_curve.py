"""What becomes of the errors when the threshold moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ThresholdCurve:
    """A point for each distinct score, the highest threshold first, and one for a threshold above all scores.

    Attributes:
        false_positive_rate: float64 [points].
        recall: float64 [points], the true positive rate.
        precision: float64 [points]; 1 where nothing is named positive.
        average_precision: the mean of the precision, weighted by the steps of the recall.
    """

    false_positive_rate: np.ndarray
    recall: np.ndarray
    precision: np.ndarray
    average_precision: float


def threshold_curve(positive: np.ndarray, scores: np.ndarray) -> ThresholdCurve | None:
    """The ROC and the precision-recall curve; None where all examples are of one kind.

    Args:
        positive: bool [n].
        scores: float [n].
    """
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return None
    order = np.argsort(-scores, kind="stable")
    ends = np.concatenate([np.flatnonzero(np.diff(scores[order])), [len(scores) - 1]])
    hits = np.concatenate([[0], np.cumsum(positive[order])[ends]])
    named = np.concatenate([[0], ends + 1])
    recall = hits / positives
    precision = np.divide(hits, named, out=np.ones(len(hits)), where=named > 0)
    return ThresholdCurve(
        false_positive_rate=(named - hits) / negatives,
        recall=recall,
        precision=precision,
        average_precision=float(np.sum(np.diff(recall) * precision[1:])),
    )
