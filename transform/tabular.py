"""Preprocessing of a table: the only one there is, for training and for serving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from serving.signatures.common import LABEL, is_missing
from transform.columns import CROSSED_KINDS, TEXT_OPTIONS, Column
from transform.errors import PreprocessingError
from transform.labels import dense_columns, label_ids
from transform.numbers import boolean_values, number_features, together
from transform.options import TabularOptions, TextOptions
from transform.text import distinct, weighted_terms, word_terms, words
from transform.text_normalization import normalized_text, select_values

NUMBERS = "numbers"
CATEGORIES = "categories"
CATEGORY_VOCABULARY = "categories"
HASHES = "hashes"
# One of each for a column, numbered from 0: `list0`, `terms0` with the weights in `terms0_weights`.
LIST = "list"
TERMS = "terms"
WEIGHTS = "_weights"
RAW = "raw"


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
        As far as there are columns of these kinds, each in the order of the columns' names:
        `numbers`: float32 [batch, n], values, then flags, see number_features; of columns that are all `z_score`, the n
        values (0 where missing), then n flags (1 where missing).
        `categories`: int64 [batch, m], a number in the vocabulary of `column=value` tokens; -1 for a value that the
        vocabulary does not know. A missing value is the category `column=`.
        `hashes`: int64 [batch, h], what hashed_categories gives.
        `list0`, `list1`, …: int64 [batch, maximum_length], the different known categories of a cell, ascending, each as
        its number in the vocabulary + 1, then 0 to the end.
        `terms0` and `terms0_weights`, …: what weighted_terms gives of a text.
        `label`: int64 [batch], -1 for a missing or unlisted label.
        Where the options name raw columns, `raw0`, `raw1`, … instead of all but the label: these columns in their
        order, [batch] each, a missing value in the form of serving/missing_values.py.
    """
    options = TabularOptions.model_validate_json(custom_config["preprocessing"])
    if options.raw:
        raw = dense_columns({name: inputs[name] for name in options.raw})
        features = {f"{RAW}{number}": raw[name] for number, name in enumerate(options.raw)}
        return features | _label(inputs, options)
    names = [name for name in sorted(inputs) if name != options.label.column]
    plan = {name: column_plan(name, inputs[name].dtype, options) for name in names}
    columns = dense_columns({name: inputs[name] for name in names if plan[name].kind not in ("list", "ignored")})
    of_kind = {kind: [name for name in names if plan[name].kind == kind] for kind in ("hash", "list", "text")}

    outputs = {}
    numbers = number_features(columns, plan)
    if numbers is not None:
        outputs[NUMBERS] = numbers
    tokens = category_tokens(columns, plan, options.crosses)
    lists = [list_tokens(name, inputs[name], plan[name]) for name in of_kind["list"]]
    if lists:
        outputs |= categories_and_lists(tokens, lists, options.minimum_category_count)
    elif tokens is not None:
        outputs[CATEGORIES] = category_ids(tokens, options.minimum_category_count)
    if of_kind["hash"]:
        outputs[HASHES] = hashed_categories([(columns[name], plan[name]) for name in of_kind["hash"]])
    if of_kind["text"]:
        outputs |= terms_of_texts({name: columns[name] for name in of_kind["text"]}, plan, options)
    return outputs | _label(inputs, options)


def _label(inputs: Mapping[str, tf.Tensor | tf.SparseTensor], options: TabularOptions) -> dict[str, tf.Tensor]:
    if options.label.column not in inputs:
        return {}
    return {LABEL: label_ids(inputs[options.label.column], options.label)}


def column_plan(name: str, dtype: tf.DType, options: TabularOptions) -> Column:
    """What happens to a column: what the options say, else z-scores for numbers and categories for strings.

    Raises:
        PreprocessingError: the column holds text where the options say that there are numbers, or the other way round.
    """
    if name not in options.columns:
        return Column(kind="categorical" if dtype == tf.string else "z_score")
    column = options.columns[name]
    if dtype == tf.string and column.holds_numbers:
        raise PreprocessingError(
            f"the column {name!r} holds text, expected numbers (preprocessing.columns.{name} is {column.kind}); "
            "mend the values, or call the column categorical"
        )
    if dtype != tf.string and column.kind == "text":
        raise PreprocessingError(
            f"the column {name!r} holds numbers, expected text (preprocessing.columns.{name} is text); "
            "call the column z_score or categorical"
        )
    if dtype != tf.string and column.kind == "datetime" and not (column.unit or column.formats):
        raise PreprocessingError(
            f"the column {name!r} holds numbers, expected a date as text (preprocessing.columns.{name} is datetime); "
            "say what the numbers are: unit: s, ms or us since 1970, or formats of their digits, such as %Y%m%d"
        )
    return column


def _is_category(column: Column) -> bool:
    return column.kind in ("categorical", "quantiles", "boundaries")


def category_text(values: tf.Tensor, column: Column) -> tf.Tensor:
    """string, of the shape of values: the category as text, "" where the value is missing.

    Without blanks around it; buckets are numbered from 0, also those of `hash`; a boolean is 1 or 0.
    """
    if column.kind == "boolean":
        true, known = boolean_values(values)
        return tf.where(known, tf.where(true, "1", "0"), "")
    if values.dtype == tf.string and column.kind != "hash":
        return _value_text(values)  # "" where it is missing
    missing = is_missing(values)
    if column.kind == "hash":
        text = tf.strings.as_string(_hash_bucket(values, column))
    elif column.kind in ("quantiles", "boundaries"):
        numbers = tf.cast(values, tf.float32)
        if column.kind == "quantiles":
            boundaries = tft.quantiles(tf.boolean_mask(numbers, ~missing), column.buckets, epsilon=0.001)
        else:
            boundaries = tf.constant([column.boundaries], tf.float32)
        text = tf.strings.as_string(tft.apply_buckets(numbers, boundaries))
    else:
        text = _value_text(values)
    return tf.where(missing, "", text)


def _value_text(values: tf.Tensor) -> tf.Tensor:
    if values.dtype == tf.string:
        return tf.strings.strip(values)
    return tf.strings.as_string(values, shortest=values.dtype.is_floating)


def _hash_bucket(values: tf.Tensor, column: Column) -> tf.Tensor:
    return tf.strings.to_hash_bucket_fast(_value_text(values), column.buckets)


def category_tokens(
    columns: Mapping[str, tf.Tensor], plan: Mapping[str, Column], crosses: Sequence[Sequence[str]]
) -> tf.Tensor | None:
    """string [batch, n]: the tokens `column=value` of the categories, then of each cross `a=1&b=2`; None without any.

    Args:
        columns: [batch] each.
        plan: what happens to each.
        crosses: the columns whose combinations are categories.

    Raises:
        PreprocessingError: a cross names a column that is no category.
    """
    single = [name for name in columns if _is_category(plan[name])]
    only_crossed = sorted({name for cross in crosses for name in cross} - set(single))
    for name in only_crossed:
        if name not in columns or plan[name].kind not in CROSSED_KINDS:
            raise PreprocessingError(
                f"preprocessing.crosses names the column {name!r}, which is no category; "
                f"give it a kind under preprocessing.columns: {', '.join(CROSSED_KINDS)}"
            )
    names = [*single, *only_crossed]
    if not names:
        return None
    # Each column has quantiles of its own.
    sorts = [(plan[name], name if plan[name].kind == "quantiles" else "") for name in names]
    texts = together(
        [(columns[name], sort) for name, sort in zip(names, sorts, strict=True)],
        lambda values, sort: category_text(values, sort[0]),
    )
    tokens = tf.constant([f"{name}=" for name in names]) + texts
    if not crosses:
        return tokens
    token = dict(zip(names, tf.unstack(tokens, axis=1), strict=True))
    joined = [tf.strings.join([token[name] for name in cross], "&") for cross in crosses]
    return tf.stack([*(token[name] for name in single), *joined], axis=1)


def category_ids(tokens: tf.Tensor, minimum_count: int) -> tf.Tensor:
    """int64, of the shape of tokens: where each stands in their common vocabulary, -1 where it does not."""
    return tft.compute_and_apply_vocabulary(
        tokens, default_value=-1, frequency_threshold=minimum_count, vocab_filename=CATEGORY_VOCABULARY
    )


@dataclass(frozen=True)
class ListTokens:
    """The categories of the cells of a column.

    Attributes:
        tokens: string [n], `column=value`, the different ones of each cell; `column=` for one that has none.
        rows: int64 [n], the row of each.
        count: int64 [], how many rows there are.
        maximum_length: how many categories of a cell count at most.
    """

    tokens: tf.Tensor
    rows: tf.Tensor
    count: tf.Tensor
    maximum_length: int | None


def list_tokens(name: str, values: tf.Tensor | tf.SparseTensor, column: Column) -> ListTokens:
    """The categories of a column of kind `list`, separated by its separator, or values of their own, or both.

    Args:
        name: of the column.
        values: [batch], [batch, n] or sparse [batch, n]; what is missing does not count.
        column: its options.
    """
    if isinstance(values, tf.SparseTensor):
        flat, rows, count = values.values, values.indices[:, 0], values.dense_shape[0]
    else:
        flat, count = tf.reshape(values, [-1]), tf.shape(values, tf.int64)[0]
        width = tf.size(values, tf.int64) // tf.maximum(count, 1)
        rows = tf.repeat(tf.range(count), width)
    tokens, rows = _split_cells(category_text(flat, column), rows, count, column.separator)
    return ListTokens(tf.strings.join([f"{name}=", tokens]), rows, count, column.maximum_length)


# A function of its own, as is _known_in_order: tf.Transform traces the preprocessing several times, these once.
@tf.function(autograph=False, reduce_retracing=True)
def _split_cells(texts: tf.Tensor, rows: tf.Tensor, count: tf.Tensor, separator: str) -> tuple[tf.Tensor, tf.Tensor]:
    """string [n] and int64 [n]: the different parts of the texts of each row, or one "", and their rows."""
    parts = tf.strings.split(texts, separator)
    categories = tf.strings.strip(parts.flat_values)
    in_rows = tf.RaggedTensor.from_value_rowids(
        categories, tf.gather(rows, parts.value_rowids()), nrows=count, validate=False
    )
    found = distinct(select_values(in_rows, tf.strings.length(categories) > 0))
    empty = tf.reshape(tf.where(tf.equal(found.row_lengths(), 0)), [-1])
    values = tf.concat([found.flat_values, tf.fill(tf.shape(empty), "")], axis=0)
    return values, tf.concat([found.value_rowids(), empty], axis=0)


def categories_and_lists(
    tokens: tf.Tensor | None, lists: Sequence[ListTokens], minimum_count: int
) -> dict[str, tf.Tensor]:
    """The feature CATEGORIES, if there are such tokens, and LIST of each list; all share a vocabulary.

    Args:
        tokens: what category_tokens gives.
        lists: of each column of the kind.
        minimum_count: how often a category must occur to be known.
    """
    parts = [of_column.tokens for of_column in lists]
    if tokens is not None:
        parts.append(tf.reshape(tokens, [-1]))
    sizes = tf.stack([tf.size(part) for part in parts])
    ids = tf.split(category_ids(tf.concat(parts, axis=0), minimum_count), sizes, num=len(parts))
    outputs = {} if tokens is None else {CATEGORIES: tf.reshape(ids.pop(), [-1, tokens.shape[1]])}
    for number, (of_column, of_list) in enumerate(zip(lists, ids, strict=True)):
        outputs[f"{LIST}{number}"] = _known_in_order(of_column.rows, of_list, of_column.count, of_column.maximum_length)
    return outputs


@tf.function(autograph=False, reduce_retracing=True)
def _known_in_order(rows: tf.Tensor, ids: tf.Tensor, count: tf.Tensor, maximum_length: int) -> tf.Tensor:
    """int64 [batch, maximum_length]: the known ids + 1 of each row, ascending, frequent ones first; then 0."""
    shift = tf.constant(32, tf.int64)
    keys = tf.sort(tf.boolean_mask(tf.bitwise.left_shift(rows, shift) + ids + 1, ids >= 0))
    rows = tf.bitwise.right_shift(keys, shift)
    known = tf.RaggedTensor.from_value_rowids(
        keys - tf.bitwise.left_shift(rows, shift), rows, nrows=count, validate=False
    )
    return known.to_tensor(shape=[None, maximum_length])


def hashed_categories(columns: Sequence[tuple[tf.Tensor, Column]]) -> tf.Tensor:
    """int64 [batch, n]: a number for each value by its hash, the same in every process.

    Each column has `buckets` + 1 numbers of its own, one column after the other; the first is for a missing value.

    Args:
        columns: of kind `hash`: values, [batch], and options of each.
    """
    firsts = np.cumsum([0, *(hash_numbers(column) for _, column in columns[:-1])])
    return together(columns, _hash_number) + tf.constant(firsts, tf.int64)


def _hash_number(values: tf.Tensor, column: Column) -> tf.Tensor:
    bucket = _hash_bucket(values, column)
    return tf.where(is_missing(values), tf.zeros_like(bucket), bucket + 1)


def hash_numbers(column: Column) -> int:
    """How many numbers a column of kind `hash` has: its buckets, and one for a missing value."""
    assert column.buckets is not None
    return column.buckets + 1


def terms_of_texts(
    texts: Mapping[str, tf.Tensor], plan: Mapping[str, Column], options: TabularOptions
) -> dict[str, tf.Tensor]:
    """The features TERMS, and their weights, of columns of kind `text`, string [batch] each."""
    outputs = {}
    count = tft.sum(tf.ones_like(next(iter(texts.values())), tf.int64), name="text_count")
    for number, (name, values) in enumerate(texts.items()):
        limits = plan[name].model_dump(include={*TEXT_OPTIONS})
        as_text = TextOptions(label=options.label, column=name, character_ngrams=None, **limits)
        tokens = words(normalized_text(values, as_text.maximum_bytes))
        feature = f"{TERMS}{number}"
        no_labels = tf.fill(tf.shape(values), "")  # the most frequent terms are known, whatever the class
        outputs[feature], outputs[f"{feature}{WEIGHTS}"] = weighted_terms(
            word_terms(tokens, as_text.word_ngrams), feature, no_labels, count, as_text
        )
    return outputs
