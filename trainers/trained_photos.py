"""What comes out of a training of photos."""

from __future__ import annotations

from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class TrainedPhotos:
    """A model of photos, and how it came about.

    Attributes:
        model: from pixels to probabilities, not compiled: what is saved of it has no optimizer's state.
        blocks: the blocks that the head sees, by their numbers among those of the backbone.
        start: from where the training began, for people; empty where it was to begin as any.
    """

    model: keras.Model
    blocks: tuple[int, ...]
    start: str
