"""What is known of a split's photos besides their pixels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from serving.export import LABEL
from serving.reference_predictions import example_id
from trainers.transformed_photos import RECORD, usable


@dataclass(frozen=True)
class PhotoSplit:
    """A split without its pixels, which do not stay in memory.

    Attributes:
        ids: the id of each example that can be learned from, see serving.reference_predictions.
        labels: int64 [n], the number of each label.
        left_out: how many examples have no photo that can be used, or no known label.
        fingerprint: SHA-256 over all examples of the split, whatever their order in the files.
    """

    ids: list[str]
    labels: np.ndarray
    left_out: int
    fingerprint: str


def read_photo_split(photos: tf.data.Dataset) -> PhotoSplit:
    """Go through a split once, decoding each photo to learn whether it can be used.

    Args:
        photos: the batches of transformed_photos.
    """
    ids: list[str] = []
    labels, kept = [np.zeros([0], np.int64)], [np.zeros([0], bool)]
    for batch in photos:
        ids.extend(example_id(record) for record in batch[RECORD].numpy())
        labels.append(batch[LABEL].numpy())
        kept.append(usable(batch).numpy())
    keep = np.concatenate(kept)
    return PhotoSplit(
        ids=[id_ for id_, used in zip(ids, keep, strict=True) if used],
        labels=np.concatenate(labels)[keep],
        left_out=int((~keep).sum()),
        fingerprint=hashlib.sha256("".join(sorted(ids)).encode()).hexdigest(),
    )
