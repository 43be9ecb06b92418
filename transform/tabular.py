"""Preprocessing of a table: the only one there is, for training and for serving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from serving.signatures.common import LABEL, is_missing
from transform.errors import PreprocessingError
from transform.labels import dense_column, label_ids
from transform.options import Column, TabularOptions

NUMBERS = "numbers"
CATEGORIES = "categories"
CATEGORY_VOCABULARY = "categories"


def preprocessing_fn(
    inputs: Mapping[str, tf.Tensor | tf.SparseTensor], custom_config: Mapping[str, Any]
) -> dict[str, tf.Tensor]:
    """Turn raw columns into the model's features.

    All numbers share one analyzer and all categories one vocabulary, so that the time of an analysis hardly grows with
    the number of columns.

    Args:
        inputs: the raw features of the schema, each [batch] or sparse [batch, n].
        custom_config: `preprocessing`, the JSON of TabularOptions.

    Returns:
        `numbers`: float32 [batch, 2n], the n z-scores (0 where missing), then n flags (1 where missing).
        `categories`: int64 [batch, m], a number in the vocabulary of `column=value` tokens; -1 for a value that the
        vocabulary does not know. A missing value is the category `column=`.
        `label`: int64 [batch], -1 for a missing or unlisted label.
    """
    options = TabularOptions.model_validate_json(custom_config["preprocessing"])
    columns = {name: dense_column(inputs[name]) for name in sorted(inputs) if name != options.label.column}
    plan = {name: column_plan(name, values.dtype, options) for name, values in columns.items()}

    outputs = {}
    numbers = {name: values for name, values in columns.items() if plan[name].kind == "z_score"}
    if numbers:
        outputs[NUMBERS] = scaled_numbers(list(numbers.values()))
    texts = {name: category_text(values, plan[name]) for name, values in columns.items() if _is_category(plan[name])}
    tokens = category_tokens(texts, options.crosses)
    if tokens:
        outputs[CATEGORIES] = category_ids(tokens, options.minimum_category_count)
    if options.label.column in inputs:
        outputs[LABEL] = label_ids(inputs[options.label.column], options.label)
    return outputs


def column_plan(name: str, dtype: tf.DType, options: TabularOptions) -> Column:
    """What happens to a column: what the options say, else z-scores for numbers and categories for strings.

    Raises:
        PreprocessingError: the column holds text where the options say that there are numbers.
    """
    if name not in options.columns:
        return Column(kind="categorical" if dtype == tf.string else "z_score")
    column = options.columns[name]
    if dtype == tf.string and column.kind not in ("categorical", "ignored"):
        raise PreprocessingError(
            f"the column {name!r} holds text, expected numbers (preprocessing.columns.{name} is {column.kind}); "
            "mend the values, or call the column categorical"
        )
    return column


def scaled_numbers(columns: Sequence[tf.Tensor]) -> tf.Tensor:
    """float32 [batch, 2n]: z-scores over the values that are there, then flags of those that are not."""
    missing = tf.stack([is_missing(column) for column in columns], axis=1)
    # In float64: a timestamp in seconds has more digits than a float32.
    values = tf.stack([tf.cast(column, tf.float64) for column in columns], axis=1)
    nan = tf.constant(float("nan"), tf.float64)
    scaled = tft.scale_to_z_score(tf.where(missing, nan, values), elementwise=True)
    scaled = tf.where(missing, tf.zeros_like(scaled), scaled)
    return tf.concat([tf.cast(scaled, tf.float32), tf.cast(missing, tf.float32)], axis=1)


def category_text(values: tf.Tensor, column: Column) -> tf.Tensor:
    """string [batch]: the category as text, "" where the value is missing; buckets are numbered from 0."""
    missing = is_missing(values)
    if column.kind == "categorical":
        text = values if values.dtype == tf.string else tf.strings.as_string(values, shortest=values.dtype.is_floating)
    else:
        numbers = tf.cast(values, tf.float32)
        if column.kind == "quantiles":
            boundaries = tft.quantiles(tf.boolean_mask(numbers, ~missing), column.buckets, epsilon=0.001)
        else:
            boundaries = tf.constant([column.boundaries], tf.float32)
        text = tf.strings.as_string(tft.apply_buckets(numbers, boundaries))
    return tf.where(missing, "", text)


def category_tokens(texts: Mapping[str, tf.Tensor], crosses: Sequence[Sequence[str]]) -> list[tf.Tensor]:
    """The tokens `column=value` and, for each cross, `a=1&b=2`: string [batch] each."""
    single = {name: tf.strings.join([f"{name}=", text]) for name, text in texts.items()}
    for name in (name for cross in crosses for name in cross if name not in single):
        raise PreprocessingError(
            f"preprocessing.crosses names the column {name!r}, which is no category; "
            f"give it a kind under preprocessing.columns: categorical, quantiles or boundaries"
        )
    return [*single.values(), *(tf.strings.join([single[name] for name in cross], "&") for cross in crosses)]


def category_ids(tokens: Sequence[tf.Tensor], minimum_count: int) -> tf.Tensor:
    """int64 [batch, m]: where each token stands in their common vocabulary, -1 where it does not."""
    return tft.compute_and_apply_vocabulary(
        tf.stack(list(tokens), axis=1),
        default_value=-1,
        frequency_threshold=minimum_count,
        vocab_filename=CATEGORY_VOCABULARY,
    )


def _is_category(column: Column) -> bool:
    return column.kind in ("categorical", "quantiles", "boundaries")
