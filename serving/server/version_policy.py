"""Which of the versions in a base path are served (FileSystemStoragePathSourceConfig.ServableVersionPolicy)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class VersionPolicy:
    """The `latest` largest versions, and the `specific` ones that exist; all there are where `latest` is None."""

    latest: int | None = 1
    specific: frozenset[int] = frozenset()

    def choose(self, numbers: Iterable[int]) -> set[int]:
        """Those of the numbers that are to be served."""
        ordered = sorted(numbers, reverse=True)
        return {*ordered[: self.latest], *self.specific.intersection(ordered)}
