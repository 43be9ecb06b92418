"""A version that stays loaded while a request uses it."""

from __future__ import annotations

from dataclasses import dataclass

from serving.server.served_version import ServedVersion
from serving.session_model import SessionModel


@dataclass(frozen=True)
class ModelInUse:
    """A version that stays loaded while a request uses it.

    Attributes:
        name: the model's name.
        model: its signatures, and the session behind them.
        version: keeps the model loaded for longer, where work on it goes on.
    """

    name: str
    model: SessionModel
    version: ServedVersion

    @property
    def number(self) -> int:
        """The version."""
        return self.version.number
