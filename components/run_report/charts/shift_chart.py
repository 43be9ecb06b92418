"""How far columns lie apart in two data sets."""

from __future__ import annotations

from collections.abc import Sequence

from components.run_report.charts.svg import BAD, FAINT, FIRST, INK, new_figure, page_style, svg
from components.run_report.column_shift import ColumnShift

SHOWN_COLUMNS = 12


@page_style
def shift_chart(shifts: Sequence[ColumnShift], title: str) -> str:
    """A bar for each column up to its distance, and a mark at what chance explains; of many columns the first ones."""
    shown = shifts[:SHOWN_COLUMNS]
    figure = new_figure(6.4, 0.6 + 0.26 * len(shown))
    axes = figure.subplots()
    places = range(len(shown))
    axes.barh(places, [one.distance for one in shown], 0.5, color=[BAD if one.shifted else FIRST for one in shown])
    axes.plot([one.by_chance for one in shown], places, "|", color=INK, markersize=10, markeredgewidth=1.5)
    axes.set_yticks(places, [one.column for one in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1 * max(max(one.distance, one.by_chance) for one in shown))
    axes.set_xlabel(title)
    axes.grid(axis="x", color=FAINT, linewidth=0.4)
    axes.tick_params(axis="y", length=0)
    said = "; ".join(f"{one.column} {one.distance:.3f}, by chance up to {one.by_chance:.3f}" for one in shown)
    return svg(figure, f"{title}: {said}")
