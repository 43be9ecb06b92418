"""What two configs do not have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson


def config_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Key (with dots), value before and value after of each key that differs; "" where a config does not have it."""
    first, second = dict(_flat(before)), dict(_flat(after))
    return [
        (key, first.get(key, ""), second.get(key, ""))
        for key in sorted(first.keys() | second.keys())
        if first.get(key) != second.get(key)
    ]


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", orjson.dumps(value).decode()
