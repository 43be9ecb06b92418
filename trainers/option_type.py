"""Which options a trainer has."""

from __future__ import annotations

import difflib
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel


def option_type(trainer: BaseModel, name: str) -> Any:
    """The type of an option's values: `int` or `float` where they are single numbers, else what it is annotated with.

    Args:
        trainer: options, which may hold others.
        name: of one of them, dots between what holds it and itself.

    Raises:
        ValueError: there is no such option; the message names those that there are.
    """
    section: Any = type(trainer)
    for part in name.split("."):
        known = getattr(section, "model_fields", {})
        if part not in known:
            close = difflib.get_close_matches(part, known, n=1)
            advice = f"did you mean {close[0]!r}?" if close else f"the options are {', '.join(known) or 'none'}"
            raise ValueError(f"tuner.space.{name}: trainer has no such option; {advice}")
        section = known[part].annotation
    members = get_args(section) if get_origin(section) in (Union, UnionType) else (section,)
    return next((number for number in (int, float) if number in members), section)
