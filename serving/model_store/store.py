"""What a file system and an object store each do in their own way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from serving.model_store.model_version import ModelVersion


class Store(Protocol):
    """A model base path; errors are ModelStoreError."""

    def create(self) -> None:
        """Make the base path where it is missing."""

    def reading(self) -> AbstractContextManager[None]:
        """In this block versions() is one consistent picture, as far as the store can give one."""

    def writing(self) -> AbstractContextManager[None]:
        """Needed around everything that changes what is visible; first deals with what killed processes left."""

    def versions(self) -> list[ModelVersion]:
        """Every complete version, in no particular order."""

    def labels(self) -> dict[str, int]:
        """The version that each label points to, as it is at one moment; needs no block."""

    def change_labels(self, change: Callable[[dict[str, int]], dict[str, int]]) -> None:
        """Replace the labels as a whole by what `change` makes of them."""

    def staging(self) -> AbstractContextManager[str]:
        """A place that no server looks at, gone at the end of the block. Not inside a writing() block."""

    def open(self, staging: str, name: str) -> AbstractContextManager[BinaryIO]:
        """A new file of the staged version, open for writing."""

    def reserve(self, staging: str) -> int:
        """A number larger than every one that was ever there, from now on that of the staged version."""

    def commit(self, staging: str, number: int) -> str:
        """Make the staged version visible under its number; returns its path."""

    def hide(self, version: ModelVersion, reason: str) -> str:
        """Take a visible version from the server's sight and keep it; returns its new path."""

    def show(self, version: ModelVersion) -> str:
        """Make a hidden version visible under its own number; returns its path."""

    def remove(self, version: ModelVersion) -> None:
        """Remove a visible version for good, in such an order that no server sees it half."""
