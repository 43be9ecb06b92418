"""Bounds of columns of their own."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator


def _checked(bounds: dict[str, float | None]) -> dict[str, float | None]:
    for column, bound in bounds.items():
        if bound is not None and not 0 < bound <= 1:
            raise ValueError(f"the bound of {column!r} is {bound}; a divergence lies between 0 and 1")
    return bounds


# Column -> the largest Jensen-Shannon divergence, from 0 to 1; None leaves the column out.
DivergenceBounds = Annotated[dict[str, float | None], AfterValidator(_checked)]
