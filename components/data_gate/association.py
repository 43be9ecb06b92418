"""How much a column alone tells of the label: areas under the ROC curve of one class against the rest.

Each function takes `codes`, int64 [rows], the place of a row's value among the different ones, -1 where there is none,
and `positives`, float64 [classes, rows], 1 where a row is of the class. Each answers the mean over the half of the
classes that it tells least of, since some may well stand apart by nature: 0.5 tells
nothing, 1.0 the class of every row. What stays below WORTH_KNOWING is a bound: not all classes were looked at.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from components.data_gate.split_rows import coded, compact

FOLDS = 5
# Chance alone puts ten against ten in order once in 90,000 columns.
MINIMUM_OF_CLASS = 10
MAXIMUM_CLASSES = 20
WORTH_KNOWING = 0.9


def class_indicators(labels: pa.Array) -> np.ndarray:
    """Which rows are of each class that is frequent enough to say something of; of two classes one is enough.

    Args:
        labels: of every row, none null.

    Returns:
        float64 [classes, rows]: `positives` of the other functions.
    """
    codes = coded(labels).codes
    counts = np.bincount(codes)
    enough = (counts >= MINIMUM_OF_CLASS) & (len(codes) - counts >= MINIMUM_OF_CLASS)
    classes = [code for code in np.argsort(-counts, kind="stable") if enough[code]][:MAXIMUM_CLASSES]
    if len(counts) == 2:
        classes = classes[-1:]
    return np.array([codes == code for code in classes], np.float64).reshape(len(classes), len(codes))


def missing_auc(codes: np.ndarray, positives: np.ndarray) -> float:
    """What it tells whether there is a value."""
    missing = (codes < 0).astype(np.int64)
    return _of_worst_half((_either_way(*_counts(missing, row, 2)) for row in positives), len(positives))


def order_auc(codes: np.ndarray, positives: np.ndarray) -> float:
    """What the order of the values tells, in the better direction; rows without a value stand at the better end."""
    places, count = compact(codes)
    lowest, highest = places + 1, np.where(places < 0, count, places)
    orders = [lowest] if places.min(initial=0) >= 0 else [lowest, highest]
    return max(
        _of_worst_half((_either_way(*_counts(order, row, count + 1)) for row in positives), len(positives))
        for order in orders
    )


def neighbour_auc(codes: np.ndarray, positives: np.ndarray) -> float:
    """What the nearest other values tell: the share of a class among them, rows of the same value apart.

    Finds what the order alone does not: classes in blocks, or one between two others.
    """
    places, count = compact(codes)
    places = np.where(places < 0, count, places)
    reach = int(np.clip(count // 100, 5, 50))
    start, stop = np.maximum(np.arange(count) - reach, 0), np.minimum(np.arange(count) + reach + 1, count)

    def area(row: np.ndarray) -> float:
        positive, negative = _counts(places, row, count + 1)
        of_class, of_rest = (_sums(values[:count], start, stop) for values in (positive, negative))
        # Rows without a value have no neighbours; all of them together get one score.
        of_class, of_rest = np.append(of_class, positive[count:]), np.append(of_rest, negative[count:])
        return _area_of_scores((of_class + row.mean()) / (of_class + of_rest + 1), positive, negative)

    return _of_worst_half(map(area, positives), len(positives))


def _sums(values: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Of values[start:stop], each its middle apart."""
    total = np.append(0, np.cumsum(values))
    return total[stop] - total[start] - values


def out_of_fold_auc(codes: np.ndarray, positives: np.ndarray, folds: np.ndarray) -> float:
    """What the share of a class among rows of the same value tells, measured on the other folds.

    Values that occur once are one category, so that an identifier tells nothing.

    Args:
        folds: int64 [rows], 0 to FOLDS - 1.
    """
    places, count = compact(codes)
    once = np.append(np.bincount(places[places >= 0], minlength=count) == 1, False)
    categories, number = compact(np.where(once[places], count, places))
    cells = np.where(categories < 0, number, categories) * FOLDS + folds

    def area(row: np.ndarray) -> float:
        positive, negative = _counts(cells, row, (number + 1) * FOLDS)
        of_class, of_rest = (_of_other_folds(values) for values in (positive, negative))
        return _area_of_scores((of_class + row.mean()) / (of_class + of_rest + 1), positive, negative)

    return _of_worst_half(map(area, positives), len(positives))


def _of_other_folds(cells: np.ndarray) -> np.ndarray:
    by_fold = cells.reshape(-1, FOLDS)
    return (by_fold.sum(axis=1, keepdims=True) - by_fold).ravel()


def _counts(groups: np.ndarray, positive: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """How many rows of each group are of the class, and how many are not."""
    of_class = np.bincount(groups, weights=positive, minlength=number)
    return of_class, np.bincount(groups, minlength=number) - of_class


def _area_of_scores(scores: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    occupied = np.flatnonzero(positive + negative)
    order = occupied[np.argsort(scores[occupied])]
    starts = np.flatnonzero(np.append(True, np.diff(scores[order]) > 1e-12))
    return _area(np.add.reduceat(positive[order], starts), np.add.reduceat(negative[order], starts))


def _area(positive: np.ndarray, negative: np.ndarray) -> float:
    """Under the ROC curve, of groups by ascending scores; rows of one group are ties (Mann and Whitney, 1947)."""
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / (positive.sum() * negative.sum()))


def _either_way(positive: np.ndarray, negative: np.ndarray) -> float:
    area = _area(positive, negative)
    return max(area, 1 - area)


def _of_worst_half(areas: Iterable[float], classes: int) -> float:
    half, known, most = max(1, classes // 2), [], 1.0
    for area in areas:
        known.append(area)
        worst = sorted(known)[:half]
        most = (sum(worst) + half - len(worst)) / half  # if the other classes were told entirely
        if most < WORTH_KNOWING:
            break
    return most
