"""Which training examples tell trials of a search apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from trainers.training_error import TrainingError
from trainers.tuner_options import TunerOptions

_BUCKETS = 1000


def held_out_for_tuning(examples: tf.Tensor | Sequence[str], options: TunerOptions) -> tf.Tensor:
    """bool, of the same shape: whether trials do without an example, and are compared by it.

    It depends on the example and the seed alone, so that equal examples are on one side.

    Args:
        examples: string, the examples themselves or their ids.
        options: the share and the seed.
    """
    share = tf.constant(round(options.held_out_share * _BUCKETS), tf.int64)
    return tf.strings.to_hash_bucket_strong(examples, _BUCKETS, key=[options.seed, 0]) < share


def check_held_out(train: np.ndarray, held_out: np.ndarray, options: TunerOptions) -> None:
    """See that trials have something to learn from, and to be compared by.

    Args:
        train: int64 [n], the labels of what they learn from.
        held_out: int64 [m], of what they are compared by.
        options: the share.

    Raises:
        TrainingError: one of both has examples of one label only, or none.
    """
    for what, labels in (("held out of the training split for the tuner", held_out), ("left to learn from", train)):
        if len(np.unique(labels)) < 2:
            raise TrainingError(
                f"tuner.held_out_share is {options.held_out_share}: of {len(train) + len(held_out)} examples, "
                f"{len(labels)} are {what}, and not two labels among them; change the share, or give more data"
            )
