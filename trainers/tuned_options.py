"""A trainer's options with other values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

Options = TypeVar("Options", bound=BaseModel)


def tuned_options(options: Options, values: Mapping[str, Any]) -> Options:
    """The options with these values, by name, dots between what holds an option and itself.

    Raises:
        ValidationError: an option refuses its value.
    """
    if not values:
        return options
    content = options.model_dump()
    for name, value in values.items():
        *holders, last = name.split(".")
        section = content
        for holder in holders:
            section = section[holder]
        section[last] = value
    return type(options).model_validate(content)
