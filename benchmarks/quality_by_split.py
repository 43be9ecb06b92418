"""A quality on several splits of the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.harness.measurement import Goal, Measurement

THEIRS = "scikit-learn"


def quality_by_split(
    unit: str, ours: Sequence[float], theirs: Sequence[float], allowed: float = 0.0
) -> list[Measurement]:
    """The means of both, and each split beside the other's.

    Args:
        unit: "AUC" or "accuracy".
        ours: of each split.
        theirs: of the same splits.
        allowed: how much lower our mean may be.
    """
    mean, their_mean = float(np.mean(ours)), float(np.mean(theirs))
    of = f"{unit}, mean of {len(ours)} splits"
    goal = Goal(round(1 - allowed / their_mean, 4))
    each = [
        Measurement(f"{unit}, split {seed}: ingraph", our, unit, "quality", our / their, THEIRS)
        for seed, (our, their) in enumerate(zip(ours, theirs, strict=True))
    ]
    return [
        Measurement(f"{of}: {THEIRS}", their_mean, unit, "quality"),
        Measurement(f"{of}: ingraph", mean, unit, "quality", mean / their_mean, THEIRS, goal),
        *(each if len(each) > 1 else []),
    ]
