"""The picture of a run's steps."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.patches import FancyBboxPatch

from components.run_report.charts.svg import BAD, FAINT, FIRST, IDLE, INK, PAPER, new_figure, page_style, svg
from components.run_report.step import Step

_COLOURS = {"done": FIRST, "unchanged": FAINT, "failed": BAD, "not reached": IDLE}
_BOX = (1.0, 0.5)


@page_style
def steps_chart(steps: Sequence[Step]) -> str:
    """Boxes from top to bottom with name, state and time; arrows lead to the steps that take the outputs."""
    places = _places(steps)
    rows = 1 + max(row for _, row in places.values())
    figure = new_figure(6.4, 0.72 * rows)
    axes = figure.subplots()
    axes.set_axis_off()
    for step in steps:
        for upstream in _drawn_upstream(step, steps):
            (from_column, from_row), (column, row) = places[upstream], places[step.name]
            axes.annotate(
                "",
                xy=(column, -row + _BOX[1] / 2),
                xytext=(from_column, -from_row - _BOX[1] / 2),
                arrowprops={"arrowstyle": "-|>", "color": FAINT, "shrinkA": 0, "shrinkB": 0},
                zorder=0,
            )
    for step in steps:
        column, row = places[step.name]
        axes.add_patch(
            FancyBboxPatch(
                (column - _BOX[0] / 2, -row - _BOX[1] / 2),
                *_BOX,
                boxstyle="round,pad=0,rounding_size=0.08",
                facecolor=PAPER,
                edgecolor=_COLOURS[step.state],
                linewidth=1 if step.state == "not reached" else 2,
                linestyle="-" if step.state in ("done", "failed") else "--",
            )
        )
        axes.text(column, -row + 0.08, step.name, ha="center", va="center", color=INK, weight="bold", size=8.5)
        axes.text(column, -row - 0.12, _state(step), ha="center", va="center", color=INK, size=8)
    columns = [column for column, _ in places.values()]
    axes.set_xlim(min(columns) - 0.6, max(columns) + 0.6)
    axes.set_ylim(-rows + 0.6, 0.4)
    return svg(figure, "The steps of the run: " + "; ".join(f"{step.name} {_state(step)}" for step in steps))


def _state(step: Step) -> str:
    return f"{step.seconds:.1f} s" if step.state == "done" and step.seconds is not None else step.state


def _places(steps: Sequence[Step]) -> dict[str, tuple[float, int]]:
    """Step -> column and row: below all that it waits for, the steps of a row side by side."""
    rows: dict[str, int] = {}
    for step in steps:
        rows[step.name] = 1 + max((rows[name] for name in step.upstream if name in rows), default=-1)
    for step in steps:
        if not step.upstream:  # as near as possible to what waits for it
            rows[step.name] = min((rows[one.name] for one in steps if step.name in one.upstream), default=1) - 1
    places = {}
    for row in sorted(set(rows.values())):
        names = [name for name in rows if rows[name] == row]
        for place, name in enumerate(names):
            places[name] = (1.2 * (place - (len(names) - 1) / 2), row)
    return places


def _drawn_upstream(step: Step, steps: Sequence[Step]) -> list[str]:
    """The upstream steps that no other upstream step waits for: the other arrows say nothing new."""
    upstream_of = {one.name: set(one.upstream) for one in steps}
    reached: set[str] = set()
    waiting = [name for near in step.upstream for name in upstream_of.get(near, ())]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting.extend(upstream_of.get(name, ()))
    return [name for name in step.upstream if name in upstream_of and name not in reached]
