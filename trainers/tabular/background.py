"""The background of explanations: rows of the train split that give what a coalition of columns leaves out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from serving.reference_predictions import choose_examples
from serving.signatures.common import Features, FeatureSpec, parse_examples
from serving.signatures.explain import MOST_BACKGROUND, TABLE_SAMPLES
from serving.signatures.tabular import dense_rows
from trainers.options import ServingOptions
from trainers.splits import TransformGraph

# Rows that are drawn from the split, of which some are chosen by what the model says of them.
_DRAWN = 2048


def explanation(
    serving: ServingOptions,
    train_files: Sequence[str],
    columns: FeatureSpec,
    transform: TransformGraph,
    predict: Callable[[Features], tf.Tensor],
) -> tuple[int, Mapping[str, np.ndarray]] | None:
    """What a model of tables is to be explained by: serving.signatures.tabular.served_model's `explain`.

    Args:
        serving: options of the config.
        train_files: patterns of gzipped TFRecord files of raw tf.Examples.
        columns: the raw features that the signatures ask for.
        transform: raw features to model features.
        predict: model features to probabilities.
    """
    samples = serving.explain_samples(TABLE_SAMPLES)
    if samples is None:
        return None
    return samples, background_rows(train_files, columns, lambda raw: predict(transform(raw)))


def background_rows(
    train_files: Sequence[str],
    columns: FeatureSpec,
    predict: Callable[[Features], tf.Tensor],
    most: int = MOST_BACKGROUND,
) -> dict[str, np.ndarray]:
    """Each column of a few rows, [rows, values], such that the model says of them what it says of all.

    Rows are drawn by their ids, which are hashes, and ordered by the most probable class and its probability; rows at
    equal distances in this order are taken, whose mean is close to that of many more.

    Args:
        train_files: see explanation; they are read once, and 2,048 rows of them are held in memory.
        columns: the raw features that are taken.
        predict: raw features to probabilities, float32 [batch, classes].
        most: how many rows.
    """
    files = sorted(path for pattern in train_files for path in tf.io.gfile.glob(pattern))
    drawn, _ = choose_examples(files, _DRAWN)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def answered(serialized: tf.Tensor) -> tuple[tf.Tensor, Mapping[str, tf.Tensor]]:
        raw = parse_examples(serialized, columns)
        return predict(raw), {name: dense_rows(raw[name], spec) for name, spec in columns.items()}

    found, rows = answered(tf.constant([record for _, record in drawn]))
    probabilities = found.numpy()
    order = np.lexsort((probabilities.max(axis=1), probabilities.argmax(axis=1)))
    count = min(most, len(order))
    chosen = order[(np.arange(count) * 2 + 1) * len(order) // (2 * count)]
    return {name: values.numpy()[chosen] for name, values in rows.items()}
