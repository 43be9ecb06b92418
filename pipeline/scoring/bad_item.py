"""What cannot be scored."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BadItem:
    """A row or photo that cannot be scored.

    Attributes:
        source: the file.
        line: in which the row begins, from 1; None for a photo.
        reason: for a person.
        whole_file: nobody knows how many rows are lost with it, so that nothing is written.
    """

    source: str
    line: int | None
    reason: str
    whole_file: bool = False

    @property
    def place(self) -> str:
        """File and line, as editors take them."""
        return self.source if self.line is None else f"{self.source}:{self.line}"
