"""Rows of several features, of which some have more values in one row than in another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import tensorflow as tf

Column: TypeAlias = np.ndarray | tf.Tensor | tf.RaggedTensor


def dense_batch(columns: Mapping[str, Column], rows: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
    """Some of the rows, int64 [n], or all; ragged columns are filled up with 0 to the longest of these rows."""
    chosen = columns if rows is None else {name: tf.gather(column, rows) for name, column in columns.items()}
    return {
        name: column.to_tensor() if isinstance(column, tf.RaggedTensor) else tf.convert_to_tensor(column)
        for name, column in chosen.items()
    }
