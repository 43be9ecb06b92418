"""What is known of a split's photos besides their pixels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from serving.export import LABEL
from serving.reference_predictions import example_id
from trainers.photos import RECORD, Photos, is_held_out, is_usable

BATCH_SIZE = 32


@dataclass(frozen=True)
class PhotoSplit:
    """A split without its pixels, which do not stay in memory.

    Attributes:
        labels: int64 [n], the number of the label of each photo that can be learned from.
        held_out: bool [n], which of them a training may watch itself on.
        left_out: how many examples have no photo that can be used, or no known label.
        fingerprint: SHA-256 over all examples of the split, whatever their order in the files.
    """

    labels: np.ndarray
    held_out: np.ndarray
    left_out: int
    fingerprint: str


def read_photo_split(photos: Photos) -> PhotoSplit:
    """Go through a split once, decoding each photo to learn whether it can be used."""
    ids: list[str] = []
    labels, held_out, usable = [np.zeros([0], np.int64)], [np.zeros([0], bool)], [np.zeros([0], bool)]
    for batch in photos.batches(BATCH_SIZE):
        ids.extend(example_id(record) for record in batch[RECORD].numpy())
        labels.append(batch[LABEL].numpy())
        held_out.append(is_held_out(batch).numpy())
        usable.append(is_usable(batch).numpy())
    used = np.concatenate(usable)
    return PhotoSplit(
        labels=np.concatenate(labels)[used],
        held_out=np.concatenate(held_out)[used],
        left_out=int((~used).sum()),
        fingerprint=hashlib.sha256("".join(sorted(ids)).encode()).hexdigest(),
    )
