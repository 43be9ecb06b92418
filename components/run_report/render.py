"""From a template to a page."""

from __future__ import annotations

import math
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from components.run_report.interval import Interval

NONE = "\N{EN DASH}"


def render(template: str, **content: Any) -> str:
    """Fill a template of templates/; everything but our own pictures is escaped."""
    environment = Environment(
        loader=PackageLoader("components.run_report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"interval": _interval, "picture": Markup, "number": _number}
    return environment.get_template(template).render(**content)


def _number(value: float | None) -> str:
    return NONE if value is None or not math.isfinite(value) else f"{value:.4f}"


def _interval(found: Interval | None, signed: bool = False) -> str:
    if found is None or not math.isfinite(found.value):
        return NONE
    sign = "+" if signed else ""
    if not math.isfinite(found.high - found.low):
        return f"{found.value:{sign}.4f}"
    return f"{found.value:{sign}.4f} ({found.low:{sign}.4f} to {found.high:{sign}.4f})"
