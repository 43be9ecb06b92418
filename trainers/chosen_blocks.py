"""Which blocks of a backbone a head should see."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trainers.ridge_head import ridge_head


def chosen_blocks(
    features: Mapping[str, np.ndarray], labels: np.ndarray, classes: int, weights: np.ndarray
) -> list[str]:
    """The block whose pooled features tell the classes best, with its neighbours as long as they help.

    The last block is not always the best: it knows most of what the backbone was trained for, and least of the rest.

    Args:
        features: block, in order -> [copies, n, channels].
        labels: int64 [n].
        classes: how many labels there are.
        weights: float [n], how much each photo counts.
    """

    def accuracy(begin: int, end: int) -> float:
        joined = np.concatenate([features[name] for name in names[begin:end]], axis=2)
        return ridge_head(joined, labels, classes, weights).accuracy

    names = list(features)
    # Of equals the first: what is cut off there is smaller.
    best, begin = max((accuracy(place, place + 1), -place) for place in range(len(names)))
    begin, end = -begin, 1 - begin
    while True:
        wider = [(begin - 1, end)] * (begin > 0) + [(begin, end + 1)] * (end < len(names))
        found = max(((accuracy(*window), window) for window in wider), default=(0.0, (begin, end)))
        if found[0] <= best:
            return names[begin:end]
        best, (begin, end) = found
