"""Which class is taken for which."""

from __future__ import annotations

import numpy as np

from components.run_report.eval_predictions import EvalPredictions


def confusion_matrix(predictions: EvalPredictions) -> np.ndarray:
    """int64 [classes, classes]: how many examples of the class of the row are named as the class of the column."""
    classes = len(predictions.labels)
    pairs = predictions.truth * classes + predictions.predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
