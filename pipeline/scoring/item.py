"""What is scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """A row of a file, or a photo, that is still to be read.

    Attributes:
        source: the file.
        line: in which the row begins, from 1; None for a photo.
        fields: column -> what stands there; {} for a photo.
    """

    source: str
    line: int | None
    fields: Mapping[str, str]
