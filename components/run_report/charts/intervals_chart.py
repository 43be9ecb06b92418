"""Metrics and their confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence

from components.run_report.charts.svg import FAINT, FIRST, SECOND, new_figure, page_style, svg
from components.run_report.metric_estimates import MetricEstimate


@page_style
def intervals_chart(estimates: Sequence[MetricEstimate]) -> str:
    """A row for each metric, on an axis of its own: the new model above the one served before."""
    figure = new_figure(6.4, 0.75 * len(estimates) + 0.2)
    rows = figure.subplots(len(estimates), squeeze=False)[:, 0]
    for axes, estimate in zip(rows, estimates, strict=True):
        models = [("new", estimate.candidate, FIRST), ("served", estimate.baseline, SECOND)]
        for place, (_, interval, colour) in enumerate(models):
            if interval is not None:
                axes.plot([interval.low, interval.high], [place, place], color=colour, linewidth=2)
                axes.plot([interval.value], [place], "o", color=colour, markersize=6)
        places = [place for place, (_, interval, _) in enumerate(models) if interval is not None]
        axes.set_yticks(places, [models[place][0] for place in places])
        axes.set_ylim(max(places) + 0.6, -0.6)
        axes.set_title(estimate.name, loc="left", size=9)
        for side in ("left", "top", "right"):
            axes.spines[side].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=FAINT, linewidth=0.4)
    said = "; ".join(
        f"{one.name} {one.candidate.value:.3f}, between {one.candidate.low:.3f} and {one.candidate.high:.3f}"
        for one in estimates
    )
    return svg(figure, f"The metrics of the new model with 95 % intervals: {said}")
