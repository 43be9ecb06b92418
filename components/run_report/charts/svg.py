"""A matplotlib figure as SVG to stand in a page."""

from __future__ import annotations

import io
import re
from html import escape
from itertools import count
from typing import Any

import matplotlib
from matplotlib.figure import Figure

# matplotlib knows no colours of a page: these stand for the variables of templates/style.css and are replaced by them.
INK, FAINT, PAPER = "#010203", "#040506", "#070809"
FIRST, SECOND, GOOD, BAD, IDLE = "#0a0b0c", "#0d0e0f", "#101112", "#131415", "#161718"
SCALE = tuple(f"#2020{level:02x}" for level in range(16, 24))
_VARIABLES = {
    INK: "ink",
    FAINT: "faint",
    PAPER: "paper",
    FIRST: "first",
    SECOND: "second",
    GOOD: "good",
    BAD: "bad",
    IDLE: "idle",
} | {colour: f"scale-{level}" for level, colour in enumerate(SCALE)}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be read, searched and enlarged
    "svg.hashsalt": "ingraph",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "path.simplify": True,
}
_FIGURES = count()

# Decorates a function that draws.
page_style = matplotlib.rc_context(_STYLE)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches (72 points) of a page."""
    return Figure(figsize=(width, height), layout="constrained")


def svg(figure: Figure, description: str) -> str:
    """The figure as an `<svg>` element.

    Args:
        figure: what to draw, in the colours of this module.
        description: what a person who cannot see it should know.
    """
    buffer = io.StringIO()
    # The creator and the date would make each report differ, and name a host.
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawing = buffer.getvalue()
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing[drawing.index("<svg") :], flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        drawing = drawing.replace(colour, f"var(--{variable})")
    # Several pictures stand in one page, where each id may stand once.
    prefix = f"picture{next(_FIGURES)}-"
    drawing = re.sub(r'\bid="', f'id="{prefix}', drawing)
    drawing = re.sub(r"url\(#", f"url(#{prefix}", drawing)
    drawing = re.sub(r'(xlink:href|href)="#', rf'\1="#{prefix}', drawing)
    drawing = re.sub(r'font: ([\d.]+)px [^;"]+', r"font: \1px system-ui, sans-serif", drawing)
    return drawing.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1)
