"""A photo that is to be read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Photo:
    """Where a photo is, and what is known of it before it is read.

    Attributes:
        file: the path to read from.
        path: what the photo is called in examples and messages: relative to the data's folder, so that it does not
            change with the place where the data lie.
        label: the class; "" where it is not known.
        split: the split whose folder it stands in, or None where its content decides.
    """

    file: str
    path: str
    label: str
    split: str | None = None
