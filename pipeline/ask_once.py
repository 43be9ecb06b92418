"""Show that a published model answers."""

from typing import Any


def ask_once(name: str, base_path: str, data: str, screen: Any) -> None:
    pass
