"""Numbers of a table: scaled, mapped to a normal distribution, or read off booleans and dates; all in one feature."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft
from tfx_bsl import sketches

from serving.signatures.common import is_missing
from transform.columns import Column
from transform.datetimes import datetime_numbers, read_datetimes

# As scikit-learn's QuantileTransformer, which has 1000 values and clips to so much more than 0.
QUANTILES = 999
SMALLEST_PROBABILITY = 1e-7
# Of the ranks, as a share of all values, as long as there are not more.
_QUANTILE_ERROR = 1e-4
_MOST_VALUES = 2**32

TRUE_TEXTS = ("true", "yes", "y", "t", "on", "1")
FALSE_TEXTS = ("false", "no", "n", "f", "off", "0")


def number_features(columns: Mapping[str, tf.Tensor], plan: Mapping[str, Column]) -> tf.Tensor | None:
    """float32 [batch, n]: all values, then a flag for each reason why one may not be there; None without any.

    In this order, each for the columns of the kind in the order of their names:

    - z-scores of `z_score` and `log`; of each `datetime` the year, of each the days since 1970 with their fraction;
    - `quantile_normal`;
    - `boolean`, 1 or 0;
    - of `datetime` sines and cosines, see datetime_numbers.

    A value that is not there is 0. Flags are 1 where a value of `z_score` and `log`, of `quantile_normal`, of `boolean`
    (also where it is neither true nor false) or of `datetime` is missing, then where a `datetime` is unreadable.

    All that is scaled shares an analyzer.

    Args:
        columns: [batch] each, of whatever kind.
        plan: what happens to each.
    """
    of_kind: dict[str, list[str]] = {}
    for name in columns:
        of_kind.setdefault(plan[name].kind, []).append(name)
    values, flags = [], []

    scaled = [name for name in columns if plan[name].kind in ("z_score", "log")]
    to_scale = []
    if scaled:
        numbers, missing = stacked_numbers([columns[name] for name in scaled])
        logarithmic = [plan[name].kind == "log" for name in scaled]
        to_scale.append(tf.where(logarithmic, signed_log(numbers), numbers) if any(logarithmic) else numbers)
        flags.append(missing)
    normal = of_kind.get("quantile_normal", [])
    if normal:
        numbers, missing = stacked_numbers([columns[name] for name in normal])
        values.append(quantile_normal(numbers))
        flags.append(missing)
    booleans = of_kind.get("boolean", [])
    if booleans:
        truth = together([(columns[name], None) for name in booleans], lambda column, _: _truth(column))
        values.append(tf.maximum(truth, 0.0))
        flags.append(truth < 0)
    datetimes = [read_datetimes(columns[name], plan[name]) for name in of_kind.get("datetime", [])]
    if datetimes:
        missing, unreadable = (
            tf.stack([getattr(read, flag) for read in datetimes], axis=1) for flag in ("missing", "unreadable")
        )
        linear, cyclic = datetime_numbers(tf.stack([read.seconds for read in datetimes], axis=1))
        to_scale.append(_where_known(linear, missing | unreadable, float("nan")))
        values.append(_where_known(cyclic, missing | unreadable, 0.0))
        flags += [missing, unreadable]

    if to_scale:
        values.insert(0, z_scores(to_scale[0] if len(to_scale) == 1 else tf.concat(to_scale, axis=1)))
    if not values:
        return None
    return tf.concat([*(tf.cast(part, tf.float32) for part in (*values, *flags))], axis=1)


def _where_known(values: tf.Tensor, unknown: tf.Tensor, replacement: float) -> tf.Tensor:
    """Values [batch, k * n], with `replacement` where the flag [batch, n] of their column is set."""
    repeated = tf.tile(unknown, [1, values.shape[1] // unknown.shape[1]])
    return tf.where(repeated, tf.constant(replacement, values.dtype), values)


Key = TypeVar("Key", bound=Hashable)


def together(columns: Sequence[tuple[tf.Tensor, Key]], function: Callable[[tf.Tensor, Key], tf.Tensor]) -> tf.Tensor:
    """[batch, n]: what an elementwise function makes of n columns; those of one dtype and key go through it as one.

    A graph has as few nodes then for a thousand columns as for one of each sort.

    Args:
        columns: [batch] each, and what else the function takes of it.
        function: [batch, k] and a key to [batch, k].
    """
    places: dict[tuple[tf.DType, Key], list[int]] = {}
    for place, (values, key) in enumerate(columns):
        places.setdefault((values.dtype, key), []).append(place)
    parts = [
        function(tf.stack([columns[place][0] for place in of_sort], axis=1), key)
        for (_, key), of_sort in places.items()
    ]
    if len(parts) == 1:
        return parts[0]
    order = np.argsort(np.concatenate([*places.values()]))
    return tf.gather(tf.concat(parts, axis=1), order, axis=1)


def stacked_numbers(columns: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """float64 [batch, n], NaN where a value is missing, and bool [batch, n], where that is."""

    # In float64: a timestamp in seconds has more digits than a float32.
    def number(values: tf.Tensor, _: None) -> tf.Tensor:
        return tf.where(is_missing(values), tf.constant(float("nan"), tf.float64), tf.cast(values, tf.float64))

    numbers = together([(column, None) for column in columns], number)
    return numbers, tf.math.is_nan(numbers)


def z_scores(values: tf.Tensor) -> tf.Tensor:
    """float64 [batch, n]: scaled to mean 0 and variance 1 over the values that are no NaN; 0 where one is."""
    scaled = tft.scale_to_z_score(values, elementwise=True)
    return tf.where(tf.math.is_nan(values), tf.zeros_like(scaled), scaled)


def signed_log(values: tf.Tensor) -> tf.Tensor:
    """sign(x) * ln(1 + |x|), of the same shape."""
    return tf.sign(values) * tf.math.log1p(tf.abs(values))


def quantile_normal(values: tf.Tensor) -> tf.Tensor:
    """float64 [batch, n]: the quantile of the normal distribution that belongs to the rank of a value; 0 for NaN.

    As scikit-learn's QuantileTransformer(output_distribution="normal"): the training values' quantiles, between which
    ranks are interpolated; beyond them, the ends, about -5.2 and 5.2. A value that many rows have gets the middle of
    their ranks, here also where it is the smallest or the largest of all.

    Args:
        values: float64 [batch, n], NaN where one is missing.
    """
    values = tf.cast(values, tf.float32)  # which the quantiles are
    (quantiles,) = tft.experimental.ptransform_analyzer(
        inputs=[values],
        ptransform=beam.CombineGlobally(_Quantiles(values.shape[1])),
        output_dtypes=[tf.float32],
        output_shapes=[[values.shape[1], QUANTILES + 1]],
        name="quantiles",
    )
    ranks = tf.transpose(ranks_among(quantiles, tf.transpose(values)))
    normal = tf.math.ndtri(tf.clip_by_value(ranks, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY))
    # A column without any value in training has no quantiles.
    known = tf.math.is_finite(values) & tf.math.is_finite(quantiles[:, 0])
    return tf.where(known, normal, tf.zeros_like(normal))


class _Quantiles(beam.CombineFn):
    """Per column of float32 [batch, n], what cuts its values into QUANTILES equal shares, both ends included.

    tft.quantiles gives neither the ends nor, where a column has no value, any column its own quantiles.
    """

    def __init__(self, columns: int) -> None:
        super().__init__()
        self._columns = columns

    def create_accumulator(self) -> list[sketches.QuantilesSketch]:
        return [sketches.QuantilesSketch(_QUANTILE_ERROR, _MOST_VALUES, 1) for _ in range(self._columns)]

    def add_input(
        self, accumulator: list[sketches.QuantilesSketch], batch: tuple[np.ndarray]
    ) -> list[sketches.QuantilesSketch]:
        for sketch, values in zip(accumulator, batch[0].T, strict=True):
            sketch.AddValues(pa.array(values[np.isfinite(values)]))
        return accumulator

    def merge_accumulators(
        self, accumulators: Iterable[list[sketches.QuantilesSketch]]
    ) -> list[sketches.QuantilesSketch]:
        first, *others = accumulators
        for other in others:
            for sketch, merged in zip(first, other, strict=True):
                sketch.Merge(merged)
        return first

    def extract_output(self, accumulator: list[sketches.QuantilesSketch]) -> np.ndarray:
        found = [sketch.GetQuantiles(QUANTILES).to_pylist() for sketch in accumulator]
        nothing = [np.nan] * (QUANTILES + 1)
        return np.array([quantiles[0] if quantiles else nothing for quantiles in found], np.float32)


def ranks_among(quantiles: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """float64 [n, batch]: from 0 to 1, by linear interpolation; the middle for a value that several quantiles have.

    Args:
        quantiles: float32 [n, q], of q - 1 equal shares of the training values, ascending.
        values: float32 [n, batch].
    """
    shares = quantiles.shape[1] - 1
    precise, of_quantiles = tf.cast(values, tf.float64), tf.cast(quantiles, tf.float64)
    largest = quantiles[:, -1:]

    def rank(place: tf.Tensor, beyond: tf.Tensor) -> tf.Tensor:
        below = tf.clip_by_value(place - 1, 0, shares - 1)
        lower, upper = (tf.gather(of_quantiles, end, axis=1, batch_dims=1) for end in (below, below + 1))
        part = tf.clip_by_value(tf.math.divide_no_nan(precise - lower, upper - lower), 0.0, 1.0)
        return tf.where(beyond, tf.ones_like(part), (tf.cast(below, tf.float64) + part) / shares)

    highest = rank(tf.searchsorted(quantiles, values, side="right"), values >= largest)
    lowest = rank(tf.searchsorted(quantiles, values, side="left"), values > largest)
    return (highest + lowest) / 2


def boolean_values(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """bool each, of the shape of values: whether one is true, and whether it is one of both: 1 or 0, or a word for it.

    Args:
        values: numbers or texts.
    """
    if values.dtype == tf.string:
        words = tf.strings.lower(tf.strings.strip(values))[..., None]
        true, false = (tf.reduce_any(tf.equal(words, of_both), axis=-1) for of_both in (TRUE_TEXTS, FALSE_TEXTS))
    else:
        true, false = (tf.equal(values, tf.constant(number, values.dtype)) for number in (1, 0))
    return true, true | false


def _truth(values: tf.Tensor) -> tf.Tensor:
    """float64, of the shape of values: 1 for true, 0 for false, -1 for neither."""
    true, known = boolean_values(values)
    return tf.cast(true, tf.float64) - tf.cast(~known, tf.float64)
