"""What became of the photos."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class LeftOut:
    """A photo that is in no split.

    Attributes:
        path: as the examples call photos.
        reason: why it was left out.
        unreadable: the photo itself is at fault; otherwise it is a copy of one that is in another split.
    """

    path: str
    reason: str
    unreadable: bool


@dataclass(frozen=True)
class IngestionReport:
    """What was written, and what was not.

    Attributes:
        examples: how many examples of each label, by split.
        left_out: the photos that are in no split.
    """

    examples: dict[str, dict[str, int]] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For a file that people read."""
        return asdict(self)


def merged(reports: Iterable[IngestionReport]) -> IngestionReport:
    """One report of several; the order of the photos left out is that of their paths."""
    examples: dict[str, dict[str, int]] = {}
    left_out: list[LeftOut] = []
    for report in reports:
        left_out.extend(report.left_out)
        for split, labels in report.examples.items():
            counts = examples.setdefault(split, {})
            for label, count in labels.items():
                counts[label] = counts.get(label, 0) + count
    return IngestionReport(
        {split: dict(sorted(examples[split].items())) for split in sorted(examples)},
        tuple(sorted(left_out, key=lambda photo: photo.path)),
    )
