"""A training split in two, for a search for hyperparameters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import tensorflow as tf

from trainers.held_out_for_tuning import check_held_out, held_out_for_tuning
from trainers.transformed_split import TransformedSplit
from trainers.tuner_options import TunerOptions


def tuning_split(train: TransformedSplit, options: TunerOptions) -> tuple[TransformedSplit, TransformedSplit]:
    """What trials learn from, and what they are compared by.

    Raises:
        TrainingError: one of both has not two labels.
    """
    held_out = held_out_for_tuning(tf.constant(train.ids, tf.string), options).numpy()
    check_held_out(train.labels[~held_out], train.labels[held_out], options)
    return _rows(train, ~held_out), _rows(train, held_out)


def _rows(split: TransformedSplit, chosen: np.ndarray) -> TransformedSplit:
    rows = np.flatnonzero(chosen)
    return replace(
        split,
        ids=[split.ids[row] for row in rows],
        features={
            name: tf.gather(column, rows) if isinstance(column, tf.RaggedTensor) else column[rows]
            for name, column in split.features.items()
        },
        labels=split.labels[rows],
    )
