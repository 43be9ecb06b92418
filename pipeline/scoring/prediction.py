"""What the model says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Prediction:
    """The model's answer for one row or photo.

    Attributes:
        source: the file.
        line: in which the row begins, from 1; None for a photo.
        label: the best one.
        probability: of that label; None where the model gives none.
        probabilities: label -> probability, the best first, as many as the model's `classify` ranks.
    """

    source: str
    line: int | None
    label: str
    probability: np.float32 | None
    probabilities: Mapping[str, np.float32]
